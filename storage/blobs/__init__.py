"""Bytes: drivers that keep objects under opaque keys. `open_driver` makes one from its settings."""
