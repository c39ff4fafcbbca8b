"""Exports hold a bounded number of cells, however many columns there are."""

import csv
import io
from pathlib import Path
from typing import Any

import duckdb
import pytest
from fastapi.testclient import TestClient
from support.fake_store import FakeStore
from trackd_daemon.http import export

COLUMNS = 300


def sparse(store: FakeStore) -> None:
    """Each row has one of many keys: dense, it is a hundred times as large."""
    store.add_run("p", "sparse", [{"_step": n, f"k{n % COLUMNS}": float(n)} for n in range(900)])


def test_csv_of_many_columns_comes_in_small_pieces(store: FakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "MAX_CELLS", 3_000)
    sparse(store)
    pieces = list(export.csv_lines(store, "p", "sparse", "default"))
    found = list(csv.DictReader(io.StringIO(b"".join(pieces).decode())))
    assert [row[f"k{n % COLUMNS}"] for n, row in enumerate(found)] == [repr(float(n)) for n in range(900)]
    assert max(piece.count(b",") for piece in pieces) <= 2 * 3_000


def test_parquet_of_many_columns_is_written_in_small_pieces(
    api: TestClient, store: FakeStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(export, "MAX_CELLS", 30_000)
    sizes = []
    real = export._column

    def seen(rows: list[dict[str, Any]], name: str, kind: str) -> Any:
        sizes.append(len(rows))
        return real(rows, name, kind)

    monkeypatch.setattr(export, "_column", seen)
    sparse(store)
    file = tmp_path / "x.parquet"
    file.write_bytes(api.get("/api/v1/runs/p/sparse/export?format=parquet").content)
    with duckdb.connect() as database:
        table = database.execute(f"SELECT _step, k7 FROM '{file}' WHERE k7 IS NOT NULL ORDER BY _step").fetchall()
    assert table == [(n, float(n)) for n in (7, 307, 607)]
    assert max(sizes) <= 30_000 // COLUMNS
