"""docs/schema.md tells of the schema as it is."""

from pathlib import Path

from tenure.storage.meta.describe import describe
from tenure.storage.meta.records import jobs
from tenure.storage.meta.schema_notes import ANYWHERE, COLUMNS, TABLES

PAGE = Path(__file__).parents[2] / "docs" / "schema.md"


def test_the_page_is_current() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == describe(), "run: python -m tenure.storage.meta.describe > docs/schema.md"


def test_every_table_and_column_is_described_and_nothing_else() -> None:
    tables = jobs.metadata.tables
    columns = {f"{table.name}.{column.name}" for table in tables.values() for column in table.columns}
    assert set(TABLES) == set(tables)
    assert set(COLUMNS) <= columns
    assert set(ANYWHERE) <= {column.partition(".")[2] for column in columns}
    assert {column for column in columns if column.partition(".")[2] not in ANYWHERE} <= set(COLUMNS)
