"""Rows of the torture table: what was done, what came of it, what was promised."""

from __future__ import annotations

import sys

_missed: list[str] = []


def report(test: str, what: str, measured: str, bar: str, *, ok: bool) -> None:
    """Print one row at once: `T1 | 500 kills | 0 missing, 0 doubled | 0, 0 | ok`. No `|` within a cell."""
    print(f"{test} | {what} | {measured} | {bar} | {'ok' if ok else 'MISSED'}", flush=True)
    if not ok:
        _missed.append(test)


def leave() -> None:
    """End the process: with 1 if a bar was missed."""
    sys.exit(1 if _missed else 0)
