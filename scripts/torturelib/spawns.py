"""T15: 64 processes want a daemon at once; it is killed 100 times; what the dead leave behind is in the way.

`scripts/torture spawns [kills] [processes]`
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2] / "tests"), str(Path(__file__).parent)]

from support import processes, spawning  # noqa: E402
from table import leave, report  # noqa: E402
from trackd_daemon.app import EXIT_BUSY  # noqa: E402
from trackd_proto.local import places  # noqa: E402


async def main(kills: int, count: int) -> None:
    home = Path(tempfile.mkdtemp(prefix="trackd-t15-"))
    os.environ |= {"TRACKD_HOME": str(home), "TRACKD_SILENT": "1"}
    where = places.instance(home)
    try:
        with spawning.watching(where) as watch:
            failed = spawning.race(where, count)
            first = spawning.epoch(where)
            report(
                "T15", f"{count} processes ask for a daemon at once", f"{len(failed)} failed, {first} started",
                "0, 1", ok=not failed and first == 1,
            )  # fmt: skip
            outages = sorted(await spawning.kills(where, kills))
            spawns = spawning.epoch(where) - first
            p99 = outages[min(len(outages) - 1, len(outages) * 99 // 100)]
            report(
                "T15", f"{kills} SIGKILLs, four clients each that want it back", f"{spawns} started",
                f"{kills} + 2 at most", ok=kills <= spawns <= kills + 2,
            )  # fmt: skip
            report(
                "T15", "outage per kill", f"median {outages[len(outages) // 2]:.2f} s, p99 {p99:.2f} s", "p99 2 s",
                ok=p99 <= 2,
            )  # fmt: skip
            await spawning.reused_pid(where)
            report("T15", "daemon.json with the pid of another program", "a new daemon, the program lives", "", ok=True)
            code = spawning.by_hand(where)
            report("T15", "a second daemon by hand", f"exit {code}", f"exit {EXIT_BUSY}", ok=code == EXIT_BUSY)
            for _ in range(10):
                await spawning.old_stops_late(where)
            report("T15", "10 daemons that stop while a new one is wanted", "socket and daemon.json stay", "", ok=True)
        report(
            "T15", "holders of daemon.lock at once", f"{watch.most} in {watch.samples} samples of the kernel's table, "
            f"{len(watch.holders)} holders in all", "1", ok=watch.most == 1 and len(watch.holders) > kills,
        )  # fmt: skip
    finally:
        processes.stop_home(home)
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:]]
    asyncio.run(main(numbers[0] if numbers else 100, numbers[1] if len(numbers) > 1 else 64))
    leave()
