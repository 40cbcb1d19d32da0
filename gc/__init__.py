"""Lifecycle: what may go, and making it go."""
