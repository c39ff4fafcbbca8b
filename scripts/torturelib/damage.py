"""T4 and T5 in full: torn writes at every byte, every bit flipped, files swapped; see scripts/torture-bytes."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import table
from support import byte_cases, corpora
from support.byte_cases import Tally

_TORN_CASES = 20_000
_TORN_S = 30.0


def main() -> None:
    """`step`: 1 is every byte and bit, 10 every tenth."""
    step = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as root:
        _tear(Path(root), step)
        _damage(Path(root), step)
    table.leave()


def _tear(root: Path, step: int) -> None:
    began = time.monotonic()
    tallies = [_show("T4", byte_cases.torn_log(corpus, _new(root), step)) for corpus in corpora.wals()]
    tallies += [_show("T4", byte_cases.torn_spool(corpus, _new(root), step)) for corpus in corpora.spools()]
    took_s, cases = time.monotonic() - began, sum(tally.cases for tally in tallies)
    wrong = sum(len(tally.violations) for tally in tallies)
    table.report(
        "T4",
        f"{cases:,} torn logs and spools",
        f"{wrong} violations, {took_s:.0f} s",
        f"at least {_TORN_CASES // step:,} cases, 0 violations, {_TORN_S:.0f} s",
        ok=wrong == 0 and cases >= _TORN_CASES // step and took_s <= _TORN_S,
    )


def _damage(root: Path, step: int) -> None:
    large = corpora.wal("64 KiB segment", batches=51, record_bytes=430)
    flips = _show("T5", byte_cases.flips_in_memory(large, step))
    table.report(
        "T5",
        f"{flips.cases:,} damages of a 64 KiB segment",
        f"{len(flips.violations)} wrong payloads or false alarms, at most {flips.lost_most} frame lost by a bit",
        "0, 1",
        ok=not flips.violations and flips.cases > 0 and flips.lost_most == 1,
    )
    recovered = _show("T5", byte_cases.flips_recovered(_new(root), step))
    table.report(
        "T5",
        f"{recovered.cases:,} bits of a killed daemon's log, read by the next one",
        f"{len(recovered.violations)} wrong payloads, at most {recovered.lost_most} frame lost",
        "0, 1",
        ok=not recovered.violations and recovered.cases > 0 and recovered.lost_most == 1,
    )
    delivered = [_show("T5", byte_cases.flips_delivered(corpus, _new(root), step)) for corpus in corpora.wals()]
    delivered += [_show("T5", byte_cases.flips_of_a_spool(corpus, _new(root), step)) for corpus in corpora.spools()]
    _bar("damaged logs and spools, delivered", delivered)
    other = corpora.chunks("another writer", records=4, files=3)
    displaced = [
        _show("T5", byte_cases.misplaced_segments(corpora.wals()[-1], _new(root))),
        _show("T5", byte_cases.misplaced_chunks(corpora.spools()[-1], other, _new(root))),
    ]
    _bar("files swapped, copied, renamed, deleted, replaced", displaced)


def _bar(what: str, tallies: list[Tally]) -> None:
    cases, wrong = sum(tally.cases for tally in tallies), sum(len(tally.violations) for tally in tallies)
    measured = f"{wrong} wrong payloads, silent losses or false alarms"
    table.report("T5", f"{cases:,} {what}", measured, "0", ok=wrong == 0 and cases > 0)


def _new(root: Path) -> Path:
    return Path(tempfile.mkdtemp(dir=root))


def _show(test: str, tally: Tally) -> Tally:
    print(f"  {test} {tally.name:40} {tally.cases:8} cases {len(tally.violations):4} violations", flush=True)
    for violation in tally.violations[:5]:
        print(f"    {violation}")
    return tally


if __name__ == "__main__":
    main()
