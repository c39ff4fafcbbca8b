"""A run's history as a file: CSV and JSON lines as a stream, Parquet through DuckDB.

Blocking; runs in worker threads. Memory does not grow with the run.
"""

import csv
import io
import itertools
import math
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import duckdb
import msgspec
import numpy as np
from starlette.background import BackgroundTask

from trackd_daemon.http import encoding
from trackd_daemon.ports import ReadPort

FIXED: Final = ("_step", "_timestamp", "_runtime")
_I64: Final = (-(2**63), 2**63 - 1)
_U64_MAX: Final = 2**64 - 1
_PLAIN: Final = frozenset({int, str, type(None)})
_MEMORY: Final = "256MB"
MAX_CELLS: Final = 2_000_000
"""Rows x columns at once: a row of `scan` has only its own keys, a line of a file has a place for every key."""
_GATHERED_BYTES: Final = 4 << 20
"""So much is read back before it is written: a statement takes long where there are many columns."""


def json_lines(store: ReadPort, project: str, run: str, stream: str) -> Iterator[bytes]:
    """One JSON object per row, as in `scan`."""
    for chunk in store.scan(project, run, keys=None, start=None, end=None, stream=stream):
        yield encoding.to_json_lines(chunk)


def csv_lines(store: ReadPort, project: str, run: str, stream: str) -> Iterator[bytes]:
    """A header and one line per row. Numbers read back exactly; nested values are JSON text."""
    names = [*FIXED, *(k["key"] for k in store.keys(project, run, stream))]
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(names)
    chunks = store.scan(project, run, keys=None, start=None, end=None, stream=stream)
    for rows in itertools.chain.from_iterable(_pieces(chunk, len(names)) for chunk in chunks):
        # The writer itself says None as nothing and a float as its repr: only the rest needs a call.
        writer.writerows(
            [
                [
                    v if type(v := row.get(name)) in _PLAIN or (type(v) is float and v - v == 0.0) else _csv_value(v)
                    for name in names
                ]
                for row in rows
            ]
        )
        yield _utf8(buffer.getvalue())
        buffer.seek(0)
        buffer.truncate()
    yield _utf8(buffer.getvalue())


def parquet_file(store: ReadPort, project: str, run: str, stream: str) -> Path:
    """The path of a Parquet file in a directory of its own, which the caller removes.

    The history is read once, into a temporary file, because the columns' types are known only at its end and a live
    run would have changed by a second reading.
    """
    directory = Path(tempfile.mkdtemp(prefix="trackd-export-"))
    try:
        spool = directory / "rows"
        types = _spool_rows(store.scan(project, run, keys=None, start=None, end=None, stream=stream), spool)
        _write_parquet(directory, spool, types)
        spool.unlink()
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    return directory / "history.parquet"


def removal(directory: Path) -> BackgroundTask:
    """Removes an export's directory once it was sent."""
    return BackgroundTask(shutil.rmtree, directory, ignore_errors=True)


def value_kinds(value: Any) -> tuple[str, ...]:
    """What a column must be able to hold for this value. Pure."""
    if isinstance(value, bool):
        return ("bool",)
    if isinstance(value, float):
        return ("float",)
    if isinstance(value, int):
        size = "small" if abs(value) <= 2**53 else "i64" if _I64[0] <= value <= _I64[1] else "u64"
        if size == "u64" and not 0 <= value <= _U64_MAX:
            return ("big",)
        return (size, "negative") if value < 0 else (size,)
    return ("text",) if isinstance(value, str) else ("other",)


def column_type(kinds: set[str]) -> str:
    """The type that holds all these kinds exactly. Pure. JSON where only JSON text does (it becomes VARCHAR)."""
    if kinds <= {"bool"}:
        return "BOOLEAN"
    if kinds <= {"small", "i64", "negative"}:
        return "BIGINT"
    if kinds <= {"small", "i64", "u64"}:
        return "UBIGINT"
    # Whole and fractional numbers of one series (1, then 0.5) are doubles, unless that would round one of them.
    if kinds <= {"small", "negative", "float"}:
        return "DOUBLE"
    return "VARCHAR" if kinds <= {"text"} else "JSON"


_NUMPY: Final[dict[str, tuple[Any, Any]]] = {
    "BOOLEAN": (np.bool_, False),
    "BIGINT": (np.int64, 0),
    "UBIGINT": (np.uint64, 0),
    "DOUBLE": (np.float64, 0.0),
}


def _spool_rows(chunks: Iterator[list[dict[str, Any]]], path: Path) -> dict[str, str]:
    """Write the rows to a file, one msgpack list per chunk behind its length; the type of each column."""
    kinds: dict[str, set[str]] = {name: set() for name in FIXED}
    with path.open("wb") as file:
        for rows in chunks:
            for row in rows:
                for key, value in row.items():
                    if value is not None:
                        kinds.setdefault(key, set()).update(value_kinds(value))
            data = encoding.to_msgpack(rows)
            file.write(len(data).to_bytes(8, "little") + data)
    return {key: column_type(seen) for key, seen in kinds.items()}


def _read_rows(path: Path, columns: int) -> Iterator[list[dict[str, Any]]]:
    """The rows of a spool file, as many at once as so many columns allow."""
    decode = msgspec.msgpack.Decoder(list[dict[str, Any]]).decode
    rows: list[dict[str, Any]] = []
    held = 0
    with path.open("rb") as file:
        while size := file.read(8):
            length = int.from_bytes(size, "little")
            rows += decode(file.read(length))
            held += length
            if held >= _GATHERED_BYTES:
                yield from _pieces(rows, columns)
                rows, held = [], 0
    yield from _pieces(rows, columns)


def _pieces(rows: list[dict[str, Any]], columns: int) -> Iterator[list[dict[str, Any]]]:
    most = max(1, MAX_CELLS // columns)
    return (rows[first : first + most] for first in range(0, len(rows), most))


def _write_parquet(directory: Path, spool: Path, types: dict[str, str]) -> None:
    config: dict[str, Any] = {"memory_limit": _MEMORY, "threads": 1, "temp_directory": str(directory)}
    # Positional names inside: DuckDB's own ignore case, so "Loss" and "loss" would collide until they are in the file.
    with duckdb.connect(str(directory / "rows.duckdb"), config=config) as database:
        columns = ", ".join(f"c{i} {'VARCHAR' if t == 'JSON' else t}" for i, t in enumerate(types.values()))
        database.execute(f"CREATE TABLE history ({columns})")
        for rows in _read_rows(spool, len(types)):
            chunk = {f"c{i}": _column(rows, name, kind) for i, (name, kind) in enumerate(types.items())}
            values = list(chunk)
            for i, kind in enumerate(types.values()):
                if kind == "DOUBLE":  # DuckDB reads NaN in an array as NULL: it is said beside it
                    chunk[f"n{i}"] = np.isnan(chunk[f"c{i}"].data)
                    values[i] = f"CASE WHEN n{i} THEN 'NaN'::DOUBLE ELSE c{i} END"
            database.register("chunk", chunk)
            database.execute(f"INSERT INTO history SELECT {', '.join(values)} FROM chunk")  # noqa: S608
            database.unregister("chunk")
        names = ", ".join(f"c{i} AS {_quoted(name)}" for i, name in enumerate(_distinct(types)))
        target = str(directory / "history.parquet").replace("'", "''")
        database.execute(f"COPY (SELECT {names} FROM history) TO '{target}' (FORMAT parquet, COMPRESSION zstd)")  # noqa: S608


def _column(rows: list[dict[str, Any]], name: str, kind: str) -> Any:
    values = [row.get(name) for row in rows]
    if kind in _NUMPY:
        dtype, filler = _NUMPY[kind]
        filled = np.array([filler if v is None else v for v in values], dtype=dtype)
        return np.ma.masked_array(filled, mask=[v is None for v in values])
    texts = values if kind == "VARCHAR" else [None if v is None else _json_text(v) for v in values]
    return np.array(texts, dtype=object)


def _distinct(names: Iterable[str]) -> list[str]:
    """The names, made different where they differ in case only (a Parquet file read by SQL ignores case). No column
    can be without one."""
    seen: set[str] = set()
    result = []
    for name in names:
        base = name or "(empty)"
        unique, number = base, 1
        while unique.lower() in seen:
            number += 1
            unique = f"{base}_{number}"
        seen.add(unique.lower())
        result.append(unique)
    return result


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _csv_value(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return value if math.isfinite(value) else encoding.json_safe(value)
    return value if value is None or isinstance(value, (int, str)) else _json_text(value)


def _json_text(value: Any) -> str:
    return encoding.to_json(value).decode()


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")
