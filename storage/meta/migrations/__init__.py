"""Revisions of the schema, applied in order by `tenure.storage.meta.migrate`."""
