"""Tenure: an OCI registry and lifecycle service. Images in use have tenure."""

__version__ = "0.1.0"
