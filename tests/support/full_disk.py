"""The stage for T8: a small tmpfs as a home, a ballast that keeps it full, and the judge of what came of it."""

from __future__ import annotations

import array
import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from grpc import aio
from trackd_proto.layout import Instance
from trackd_proto.local import instance, places
from trackd_proto.local.hub_client import HubClient, HubError
from trackd_proto.settings import Settings
from trackd_proto.v1 import ingest_pb2

from support import processes
from support.serving import wait_for

_BLOCK = bytes(64 * 1024)
TRAINER = """
import array, json, os, random, sys, time
out, rate, row_bytes = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
import trackd
run = trackd.init(project="full", id="run")
lane, clock, now = run._lane, time.perf_counter_ns, time.time
random.seed(1)
noise = [random.randbytes(row_bytes // 2).hex() for _ in range(500)]
took, seqs, at, peer = array.array("q"), array.array("q"), array.array("d"), array.array("q")
i, due, told = 0, time.monotonic(), 0.0
while not os.path.exists(out + "/stop"):
    for _ in range(max(1, rate // 100)):
        row = {"i": i, "noise": noise[i % 500]}
        before = clock()
        run.log(row)
        took.append(clock() - before)
        seqs.append(lane._state[3])
        at.append(now())
        i += 1
    if now() - told > 0.1:
        told = now()
        with open(out + "/marks.new", "w") as file:
            json.dump({"rows": i, **lane.watermarks()._asdict()}, file)
        os.rename(out + "/marks.new", out + "/marks")
    due = max(due + 0.01, time.monotonic() - 0.1)
    time.sleep(max(0.0, due - time.monotonic()))
    if i // (rate // 100) % 10 == 0:  # what the same machine needs for as much work behind the same pause
        for n in range(rate // 100):
            row = {"i": i + n, "noise": noise[(i + n) % 500]}
            before = clock()
            json.dumps(row)
            peer.append(clock() - before)
        time.sleep(0.01)
for name, values in (("took", took), ("seqs", seqs), ("at", at), ("peer", peer)):
    with open(out + "/" + name, "wb") as file:
        values.tofile(file)
run.finish()
"""


@dataclass(frozen=True)
class Size:
    """How long and how hard a scenario is."""

    full_s: float = 10.0
    """At least so long is the disk full."""
    after_s: float = 11.0
    """Trained on after space has returned: by 10 s after it nothing may be lost any more."""
    rate: int = 1000
    """Rows per second."""
    row_bytes: int = 900
    spool_quota_bytes: int = 0
    is_inodes: bool = False
    """Files are used up, not bytes."""


@dataclass
class Outcome:
    """What a scenario showed. Every list that is not empty is a broken promise, but for `losses`."""

    rows: int = 0
    missing: int = 0
    """Rows whose log() returned and that the hub does not have."""
    end_lost: bool = False
    """Whether the record of its end found no space either, and is declared lost with the rows (the courier said it)."""
    doubled: int = 0
    undeclared: list[int] = field(default_factory=list)
    """Seqs of rows that are missing and not declared."""
    false_alarms: list[int] = field(default_factory=list)
    """Seqs declared lost though the hub has them."""
    losses: list[dict[str, Any]] = field(default_factory=list)
    uncounted: int = 0
    """Records and declared losses of all writers against their last seqs."""
    agent_restarts: int = 0
    p50_us: float = 0.0
    p99_us: float = 0.0
    p999_us: float = 0.0
    peer_p99_us: float = 0.0
    """Of `json.dumps()` of such rows beside it, behind the same pauses."""
    max_us: float = 0.0
    full_s: float = 0.0
    """How long the disk had no room at all."""
    refusals: int = 0
    """Times the disk refused the ballast: the fault fired."""
    status: list[str] = field(default_factory=list)
    """What `trackd status` warned of while it was full."""
    passed: int = 0
    """Records that reached the hub while the disk was full."""
    reads_failed: int = 0
    resumed_s: float = 0.0
    """From the return of space to the last row that was lost."""
    caught_up_s: float = 0.0
    """From the return of space (or of the hub, if later) to a row in the hub that was logged after it."""
    drained_s: float = 0.0
    summary: str = ""
    """What the trainer printed."""
    state: str = ""
    """Of the run in the end, at the hub."""


class Ballast:
    """Takes what is free on a disk, bytes or inodes, and keeps it until it is let go."""

    def __init__(self, disk: Path, *, inodes: bool = False) -> None:
        self._disk = disk
        self._inodes = inodes
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.refusals = 0
        self.since = time.time()
        self._thread.start()

    def _run(self) -> None:
        with (self._disk / "ballast").open("ab", buffering=0) as file:
            number, size = 0, len(_BLOCK)
            while not self._stop.is_set():
                try:
                    if self._inodes:
                        (self._disk / f"ballast{number}").touch()
                        number += 1
                    else:
                        file.write(_BLOCK[:size])
                except OSError:
                    if size > 512 and not self._inodes:
                        size //= 2  # to the last page
                        continue
                    self.refusals += 1
                    self._stop.wait(0.02)

    def release(self) -> float:
        """Let go; the time."""
        self._stop.set()
        self._thread.join()
        for path in self._disk.glob("ballast*"):
            path.unlink()
        return time.time()


class Stage:
    """A small disk with the agent's home, another with everything else, and a trainer."""

    def __init__(self, directory: Path, disk_size: str, size: Size) -> None:
        self.size = size
        self.disk = directory / "disk"
        self.out = directory / "out"
        self.disk.mkdir()
        self.out.mkdir()
        options = f"size={disk_size},nr_inodes={300 if size.is_inodes else 0},mode=0700"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(self.disk)], check=True)
        self.home = self.disk / "home"
        self.home.mkdir(0o700)
        self.environ = {
            **os.environ, "TRACKD_HOME": str(self.home), "TRACKD_DIR": str(directory / "runs"), "TRACKD_QUIET": "1",
            "TRACKD_SPOOL_QUOTA_BYTES": str(size.spool_quota_bytes),
        }  # fmt: skip
        self.outcome = Outcome()
        self.trainer: subprocess.Popen[str] | None = None
        self._agents: set[int] = set()

    @property
    def where(self) -> Instance:
        """The agent's instance directory."""
        return places.instance(self.home)

    def train(self) -> None:
        """Start the trainer."""
        self.trainer = subprocess.Popen(
            [sys.executable, "-c", TRAINER, str(self.out), str(self.size.rate), str(self.size.row_bytes)],
            env=self.environ, cwd=self.out, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def marks(self) -> dict[str, int]:
        """The trainer's watermarks a moment ago."""
        assert self.trainer is not None
        assert self.trainer.poll() is None, self.trainer.communicate()[1]
        try:
            return json.loads((self.out / "marks").read_text())  # type: ignore[no-any-return]
        except FileNotFoundError:
            return dict.fromkeys(("rows", "assigned", "received", "durable", "committed", "lost"), 0)

    def status(self) -> list[str]:
        """The warnings that `trackd status` prints."""
        command = [sys.executable, "-c", "from trackd_daemon.cli import main; main()", "status", "--json"]
        done = subprocess.run(command, env=self.environ, capture_output=True, text=True, timeout=30, check=False)
        return json.loads(done.stdout)["warnings"] if done.stdout else [done.stderr]

    def hurry(self) -> None:
        """Let the daemon try its hub again now: how long it waits for one is not what is looked at here."""
        asyncio.run(_hurry(self.where))

    def explain(self) -> None:
        """What helps to see why it failed, on stderr."""
        for path in (self.out / "marks", *self.home.glob("*/*.log"), self.out / "hub" / "serve.log"):
            if path.exists():
                print(f"--- {path.name}", path.read_text()[-3000:], sep="\n", file=sys.stderr)
        print("--- status", *self.status(), sep="\n", file=sys.stderr)

    def note_agents(self) -> None:
        """Count the daemons that have run here: there should only ever be one."""
        self._agents |= {process.pid for process in processes.daemons(self.home)}
        self.outcome.agent_restarts = max(0, len(self._agents) - 1)

    def stop_training(self) -> None:
        """End the trainer; waits for it."""
        assert self.trainer is not None
        (self.out / "stop").touch()
        _, self.outcome.summary = self.trainer.communicate(timeout=60)
        assert self.trainer.returncode == 0, self.outcome.summary

    def judge(self, client: HubClient, space_at: float) -> None:
        """Wait until the hub has everything that it will get, and compare."""
        names = (("seqs", "q"), ("at", "d"), ("took", "q"), ("peer", "q"))
        seqs, at, took, peer = (_read(self.out / name, code) for name, code in names)
        one = self.outcome
        began = time.monotonic()
        last = seqs[-1] + 1  # and the EXIT record
        wait_for(lambda: next_seq(client) > last, "every record stored or declared lost", 90)
        one.drained_s = time.monotonic() - began
        with contextlib.suppress(AssertionError):  # the judge of that is whoever reads it
            wait_for(lambda: client.get("/runs/full/run")["state"] == "finished", "the end of the run", 30)
        one.state = client.get("/runs/full/run")["state"]
        writers = client.get("/runs/full/run/writers")["writers"]
        main = next(w for w in writers if w["role"] == "main")
        one.losses = main["losses"]
        declared = {s for x in one.losses for s in range(x["first_seq"], x["first_seq"] + x["count"])}
        stored = [row["i"] for row in client.rows("/runs/full/run/scan", {"keys": ["i"]})]
        missing = {seqs[i] for i in range(len(seqs))} - {seqs[i] for i in stored}
        one.rows, one.missing, one.doubled = len(seqs), len(missing), len(stored) - len(set(stored))
        one.end_lost = last in declared
        one.undeclared = sorted(missing - declared)
        one.false_alarms = sorted(declared & set(seqs) - missing)
        one.uncounted = sum(
            abs(w["next_seq"] - 1 - w["records"] - sum(x["count"] for x in w["losses"])) for w in writers
        )
        times = sorted(took)
        one.p50_us, one.p99_us, one.p999_us, one.max_us = (
            times[min(int(len(times) * q), len(times) - 1)] / 1000 for q in (0.5, 0.99, 0.999, 1.0)
        )
        one.peer_p99_us = sorted(peer)[len(peer) * 99 // 100] / 1000
        lost_at = [when for seq, when in zip(seqs, at, strict=True) if seq in missing]
        one.resumed_s = max(0.0, max(lost_at, default=space_at) - space_at)


def next_seq(client: HubClient) -> int:
    """Of the run's main writer at the hub; 0 if it is not there or the hub does not answer."""
    try:
        return max(
            (w["next_seq"] for w in client.get("/runs/full/run/writers")["writers"] if w["role"] == "main"), default=0
        )
    except (HubError, OSError):
        return 0


def _read(path: Path, code: str) -> array.array[Any]:
    values = array.array(code)
    with path.open("rb") as file:
        values.fromfile(file, path.stat().st_size // values.itemsize)
    return values


async def _hurry(where: Instance) -> None:
    link = await instance.reach(where, client="test")
    with contextlib.suppress(aio.AioRpcError):
        await link.control.Flush(ingest_pb2.FlushRequest(), timeout=1)
    await link.channel.close(None)


def client_of(home: Path) -> HubClient:
    """The hub of a home."""
    return HubClient.of_settings(Settings(home=str(home)))


@contextlib.contextmanager
def staged(disk_size: str, size: Size) -> Iterator[Stage]:
    """A stage, with nothing left of it afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="trackd-full-"))
    stage = Stage(directory, disk_size, size)
    try:
        yield stage
    except AssertionError:
        stage.explain()
        raise
    finally:
        if stage.trainer is not None:
            stage.trainer.kill()
        processes.stop_home(stage.home)
        subprocess.run(["umount", "--lazy", str(stage.disk)], check=False)
        shutil.rmtree(directory, ignore_errors=True)
