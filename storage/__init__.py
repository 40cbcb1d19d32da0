"""Bytes (blobs/) and facts (meta/)."""
