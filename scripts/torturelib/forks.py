"""T14: 1,000 forks of each kind beside a live run.

`scripts/torture forks [forks of each kind] [seconds after which a child counts as hanging]`
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2] / "tests"), str(Path(__file__).parent)]

from support import forking  # noqa: E402
from table import leave, report  # noqa: E402


def main(count: int, hang_s: float) -> None:
    for kind in forking.KINDS:
        found = forking.forks(kind, count, hang_s=hang_s)
        hung = found.bad.count(-9)
        facts = [f"{found.facts[key]} {what}" for key, what in _FACTS.items() if found.facts.get(key)]
        report(
            "T14",
            f"{count} of {kind}",
            f"{hung} hung, {len(found.bad) - hung} died, {found.reused} seqs twice, {found.complete} of "
            f"{found.children} children complete, {found.parent_rows} rows beside them; "
            + "; ".join([*facts, *([found.problem] if found.problem else [])] or ["no trouble"]),
            f"0 hangs over {hang_s:g} s, 0 signals, 0 twice, all complete",
            ok=found.is_good and _has_fired(found),
        )
    leave()


_FACTS = {"inside": "forks came inside log()", "processes": "processes", "couriers killed": "couriers killed"}


def _has_fired(found: forking.Outcome) -> bool:
    return found.kind != "fork inside log()" or found.facts.get("inside", 0) > 0


if __name__ == "__main__":
    arguments = [float(word) for word in sys.argv[1:]]
    main(int(arguments[0]) if arguments else 1000, arguments[1] if len(arguments) > 1 else forking.HANG_S)
