"""T18: scripts/torture soak [minutes=60] [rows per second and run=200] [trainers per home=2] [runs each=3].

Trainers log into two homes for an hour while the hub is out of reach, stopped and started, and one of the agents is
killed; memory, descriptors, threads and directories of every process are sampled every 10 s. Bars: see the table.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from support import samples, soak
from table import leave, report

MIB = samples.MIB
FLOOR_S = 120.0
"""A hub rewrites its points every few minutes, and takes up to 100 MiB more while it does."""
LONG_S = 1200.0
"""A life in which something that grows shows."""


def main(minutes: float, rate: float, trainers: int, runs: int) -> None:
    """The soak and its rows of the table."""
    plan = soak.Plan(seconds=minutes * 60, rate=rate, trainers=trainers, runs=runs)
    if minutes < 30:
        plan = soak.Plan(
            seconds=plan.seconds, rate=rate, trainers=trainers, runs=runs, kill_every_s=plan.seconds / 4,
            cut_every_s=plan.seconds / 5, cut_s=plan.seconds / 20, down_s=plan.seconds / 30, interval_s=2,
        )  # fmt: skip
    home = Path(tempfile.mkdtemp(prefix="trackd-soak-"))
    began = time.monotonic()
    try:
        outcome = soak.Soak(home, plan).run()
    finally:
        for log in (home / "trainers.log", home / "hub.log", *home.glob("*/*/*.log")):
            print(f"  {log.relative_to(home)}: {log.read_text()[-1500:]}")
        shutil.rmtree(home, ignore_errors=True)
    warm_s = min(600.0, plan.seconds / 6)
    what = f"{minutes:g} min, {2 * trainers} trainers of {runs} runs, {rate:g} rows/s each"
    for at, fault in outcome.faults:
        print(f"  {at:7.0f} s {fault}")
    for role, path in outcome.paths.items():
        print(f"  {role} ran from {path}")
    cpu = outcome.watch.cpu_s() / (time.monotonic() - began)
    print(f"  {100 * cpu:.0f} % of one core")
    faults = {kind: outcome.count(kind) for kind in ("agent killed", "hub out of reach", "hub stopped")}
    for line in outcome.problems[:20]:
        print(f"  {line}")
    report(
        "T18", f"{what}; {', '.join(f'{count} × {kind}' for kind, count in faults.items())}",
        f"{outcome.held} of {outcome.logged} rows, {len(outcome.problems)} runs with anything wrong, "
        f"{outcome.drained_s:.1f} s to drain", "0 lost, doubled or out of order",
        ok=not outcome.problems and outcome.held == outcome.logged > 0 and all(faults.values()),
    )  # fmt: skip
    report(
        "T18", "WAL segments after the drain", f"{outcome.segments}", "2",
        ok=bool(outcome.segments) and max(outcome.segments.values()) <= 2,
    )  # fmt: skip
    for role in outcome.watch.roles():
        one_role(role, outcome, warm_s)
    for at, sizes in outcome.sizes[:: max(1, len(outcome.sizes) // 12)]:
        print(f"  {at:6.0f} s " + ", ".join(f"{n} {s / MIB:.1f}" for n, s in sorted(sizes.items())))


def one_role(role: str, outcome: soak.Outcome, warm_s: float) -> None:
    """Rows of one process, through all of its lives; each is young for a while."""
    lives = outcome.watch.lives(role)
    young_s = warm_s if len(lives) == 1 else min(warm_s, 180.0)
    settled = [[s for s in life.after(max(warm_s, life.samples[0].at_s + young_s))] for life in lives]
    settled = [one for one in settled if len(one) >= 6]
    for one in settled:
        print(
            f"  {role} from {one[0].at_s:.0f} to {one[-1].at_s:.0f} s: resident {one[0].rss_bytes / MIB:.1f} to "
            f"{one[-1].rss_bytes / MIB:.1f} MiB (private {one[0].private_bytes / MIB:.1f} to "
            f"{one[-1].private_bytes / MIB:.1f}), slope {slope(one, 'rss_bytes'):+.2f} "
            f"({slope(one, 'private_bytes'):+.2f}) MiB/h, descriptors {samples.levels([s.descriptors for s in one])}, "
            f"threads {samples.levels([s.threads for s in one])}"
        )
    if not settled:
        return
    # Each life starts anew: what grows grows within one. Only of lives that are all short is it taken from one to the
    # next, through what they have in common: the directory that they find.
    longest = max(settled, key=lambda one: one[-1].at_s - one[0].at_s)
    is_long = longest[-1].at_s - longest[0].at_s >= LONG_S
    counted = longest if is_long or len(settled) == 1 else [sample for one in settled for sample in one]
    private, resident = slope(counted, "private_bytes"), slope(counted, "rss_bytes")
    # A trainer maps its spool: the pages of a chunk become resident one by one, and go with the chunk.
    barred = private if role.startswith("trainer") else max(private, resident)
    minutes = (counted[-1].at_s - counted[0].at_s) / 60
    report(
        "T18", f"{role}: {len(lives)} lives, memory over {minutes:.0f} min",
        f"{private:+.2f} MiB/h private, {resident:+.2f} with mapped files, at most "
        f"{max(s.rss_bytes for one in settled for s in one) / MIB:.0f} MiB", "+1 MiB/h", ok=barred <= 1,
    )  # fmt: skip
    for name in ("descriptors", "threads"):
        first, last, most = samples.levels([getattr(s, name) for s in counted])
        report("T18", f"{role}: {name}", f"{first} to {last}, at most {most}", "constant", ok=last <= first)


def slope(taken: list[samples.Sample], name: str) -> float:
    """MiB per hour, of the least values of every so many seconds."""
    points = ((s.at_s, getattr(s, name) / MIB) for s in taken)
    return samples.slope_per_h(samples.floors(points, FLOOR_S))


if __name__ == "__main__":
    given = sys.argv[1:]
    defaults = ["60", "200", "2", "3"]
    words = [*given, *defaults[len(given) :]]
    main(float(words[0]), float(words[1]), int(words[2]), int(words[3]))
    leave()
