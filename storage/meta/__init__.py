"""Facts: what exists, what refers to what, who did it; on SQLite or Postgres."""
