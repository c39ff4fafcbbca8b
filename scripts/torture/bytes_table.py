"""T4 and T5 in full; see scripts/torture-bytes."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from support import byte_cases, corpora
from support.byte_cases import Tally

_TORN_CASES = 20_000
_TORN_S = 30.0


def main() -> int:
    step = int(sys.argv[1])
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as root:
        table = Table(Path(root))
        logs, spools = corpora.wals(), corpora.spools()
        started = time.monotonic()
        torn = [table.run("T4", corpus, byte_cases.torn_log, step) for corpus in logs]
        torn += [table.run("T4", corpus, byte_cases.torn_spool, step) for corpus in spools]
        seconds, cases = time.monotonic() - started, sum(tally.cases for tally in torn)
        table.bar(f"T4: {cases} cases (bar {_TORN_CASES // step}) in {seconds:.0f} s (bar {_TORN_S:.0f})",
                  cases >= _TORN_CASES // step and seconds <= _TORN_S)  # fmt: skip
        large = corpora.wal("64 KiB segment", batches=51, record_bytes=430)
        flips = table.add("T5", lambda: byte_cases.flips_in_memory(large, step))
        table.bar(f"T5: at most {flips.lost_most} frame lost by a flipped bit (bar 1)", flips.lost_most == 1)
        for corpus in logs:
            table.run("T5", corpus, byte_cases.flips_delivered, step)
        for corpus in spools:
            table.run("T5", corpus, byte_cases.flips_of_a_spool, step)
        other = corpora.chunks("another writer", records=4, files=3)
        table.add("T5", lambda: byte_cases.misplaced_segments(logs[-1], table.directory()))
        table.add("T5", lambda: byte_cases.misplaced_chunks(spools[-1], other, table.directory()))
        return table.close()


class Table:
    """Prints as it goes."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._count = 0
        self._cases = 0
        self._is_good = True

    def directory(self) -> Path:
        self._count += 1
        directory = self._root / str(self._count)
        directory.mkdir()
        return directory

    def run(self, test: str, corpus: corpora.Corpus, case: Callable[..., Tally], step: int) -> Tally:
        return self.add(test, lambda: case(corpus, self.directory(), step))

    def add(self, test: str, case: Callable[[], Tally]) -> Tally:
        started = time.monotonic()
        tally = case()
        seconds = time.monotonic() - started
        self._cases += tally.cases
        self.bar(
            f"{test} {tally.name:40} {tally.cases:8} cases {len(tally.violations):4} violations (bar 0)"
            f" {seconds:6.1f} s",
            not tally.violations and tally.cases > 0,
        )
        for violation in tally.violations[:5]:
            print(f"    {violation}")
        return tally

    def bar(self, line: str, is_met: bool) -> None:
        self._is_good &= is_met
        print(f"{'ok  ' if is_met else 'FAIL'} {line}", flush=True)

    def close(self) -> int:
        print(f"{self._cases} cases")
        return 0 if self._is_good else 1


if __name__ == "__main__":
    sys.exit(main())
