"""T15: many want a daemon at once, it is killed over and over, and what the dead leave behind is in the way."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from trackd_proto.layout import Instance
from trackd_proto.local import instance

from support import processes
from support.looking import looking
from support.serving import wait_for

_SPAWNER = """
import sys
from trackd_proto.local import instance, places
where = places.instance()
print("ready", flush=True)
sys.stdin.readline()
instance.spawn(where, timeout_s=120)
"""
_CLIENTS = 4


@dataclass
class Watch:
    """Who held the lock of an instance directory, as the kernel says."""

    most: int = 0
    """At once, in any sample."""
    samples: int = 0
    holders: set[int] = field(default_factory=set)


@contextmanager
def watching(where: Instance) -> Iterator[Watch]:
    """Samples the kernel's table of locks, every file that was ever `daemon.lock` included."""
    found, inodes = Watch(), set[str]()

    def look() -> None:
        try:
            inodes.add(str(where.daemon_lock.stat().st_ino))
        except OSError:
            return
        words = [line.split() for line in Path("/proc/locks").read_text().splitlines() if "->" not in line]
        now = [int(w[4]) for w in words if w[1] == "FLOCK" and w[5].rpartition(":")[2] in inodes]
        found.most = max(found.most, len(now))
        found.samples += 1
        found.holders.update(now)

    with looking(look):
        yield found


def epoch(where: Instance) -> int:
    """How many daemons have ever owned the directory."""
    try:
        return int(where.epoch.read_text())
    except FileNotFoundError:
        return 0


def race(where: Instance, count: int) -> list[str]:
    """`count` processes ask for a daemon in the same moment; what those said that did not get one."""
    waiting = [
        subprocess.Popen(
            [sys.executable, "-c", _SPAWNER], env=os.environ | {"TRACKD_HOME": str(where.home)},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(count)
    ]  # fmt: skip
    for process in waiting:
        assert process.stdout is not None
        process.stdout.readline()
    for process in waiting:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate(timeout=180)[1] for process in waiting]
    return [text[-500:] for process, text in zip(waiting, said, strict=True) if process.returncode]


async def kills(where: Instance, count: int) -> list[float]:
    """SIGKILL the daemon, let several clients want it back: seconds until the first was served, per kill."""
    outages = []
    for _ in range(count):
        await (await instance.reach(where, timeout_s=60)).channel.close()
        (daemon,) = processes.daemons(where.home)
        began = time.monotonic()
        daemon.kill()
        await asyncio.to_thread(daemon.wait, 10)
        links = [asyncio.create_task(instance.reach(where, timeout_s=60)) for _ in range(_CLIENTS)]
        await asyncio.wait(links, return_when=asyncio.FIRST_COMPLETED)
        outages.append(time.monotonic() - began)
        for each in await asyncio.gather(*links):
            await each.channel.close()
    return outages


async def reused_pid(where: Instance) -> None:
    """daemon.json names a pid that another program has now, and a socket that nobody listens on."""
    (daemon,) = processes.daemons(where.home)
    said = json.loads(where.published.read_text())
    daemon.kill()
    await asyncio.to_thread(daemon.wait, 10)
    me = psutil.Process()
    where.published.write_text(json.dumps(said | {"pid": me.pid, "start_time": me.create_time()}))
    await (await instance.reach(where, timeout_s=60)).channel.close()
    assert me.is_running()
    assert processes.daemons(where.home)[0].pid != me.pid


async def old_stops_late(where: Instance) -> None:
    """The old daemon is held while it stops and a new one is wanted: what the new one has made stays."""
    (old,) = processes.daemons(where.home)
    old.send_signal(signal.SIGTERM)
    link = await instance.reach(where, timeout_s=60)
    await link.channel.close()
    await asyncio.to_thread(_reap, old)
    await (await instance.reach(where, timeout_s=60)).channel.close()
    (new,) = processes.daemons(where.home)
    assert new.pid != old.pid
    published = instance.read_published(where)
    assert published is not None
    assert Path(published.socket).exists(), "the old daemon removed the new one's socket"


def _reap(process: psutil.Process) -> None:
    wait_for(lambda: not process.is_running(), "the old daemon to end", 60)


def by_hand(where: Instance) -> int:
    """A second daemon started by hand beside the running one; its exit code."""
    command = [sys.executable, "-c", "from trackd_daemon.cli import main; main()", "serve"]
    environment = os.environ | {"TRACKD_HOME": str(where.home)}
    return subprocess.run(command, env=environment, capture_output=True, timeout=60, check=False).returncode
