"""T8: a disk that is really full, under a trainer that goes on logging; what came of it, exactly.

The disk is a small tmpfs in a mount namespace of its own, full of bytes or of files; a ballast takes whatever becomes
free until it is let go. Everything that the oracle needs is kept on another disk.
`python -m support.diskfull SCENARIO SIZE` inside the namespace prints an Outcome; `start` puts it there.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trackd_proto.local import places
from trackd_proto.local.hub_client import HubClient

from support.full_disk import Ballast, Outcome, Size, Stage, client_of, next_seq, staged
from support.serving import free_port, ready, serving, wait_for

UNSHARE = ["unshare", "--user", "--map-root-user", "--mount"]


def _fill(stage: Stage, client: HubClient | None, *, until_lost: bool) -> float:
    """Keep the disk full for a while, and until something is lost if that is what is wanted; the time it ended."""
    ballast = Ballast(stage.disk, inodes=stage.size.is_inodes)
    try:
        wait_for(lambda: ballast.refusals > 0, "the disk is full")
        before = next_seq(client) if client is not None else 0
        until = time.monotonic() + stage.size.full_s
        while time.monotonic() < until or (until_lost and not stage.marks()["lost"]):
            assert time.monotonic() < until + 120, "nothing is lost"
            stage.note_agents()
            time.sleep(0.2)
            if client is not None and next_seq(client) == 0:
                stage.outcome.reads_failed += 1
        stage.outcome.passed = next_seq(client) - before if client is not None else 0
        stage.outcome.status = stage.status()
    finally:
        space_at = ballast.release()
        stage.outcome.refusals += ballast.refusals
        stage.outcome.full_s += space_at - ballast.since
    return space_at


def _go_on(stage: Stage, client: HubClient, since: float) -> None:
    """Train on for a while; notes when something that was logged after `since` is in the hub."""
    goal = stage.marks()["assigned"] + 1
    wait_for(lambda: next_seq(client) > goal, "the hub has something newer than the return of space", 60)
    stage.outcome.caught_up_s = time.time() - since
    time.sleep(max(0.0, stage.size.after_s - (time.time() - since)))
    stage.note_agents()


def embedded(size: Size) -> Outcome:
    """The hub's store and the log share the disk that is full."""
    with staged("192m", size) as stage:
        stage.train()
        wait_for(lambda: stage.marks()["committed"] > 100, "the embedded hub takes records")
        client = client_of(stage.home)
        space_at = _fill(stage, client, until_lost=True)
        _go_on(stage, client, space_at)
        stage.stop_training()
        stage.judge(client, space_at)
        return stage.outcome


def hub_up(size: Size) -> Outcome:
    """A hub elsewhere takes everything while the agent's disk is full."""
    with staged("48m", size) as stage, _hub_elsewhere(stage) as (start_hub, client), start_hub():
        stage.train()
        wait_for(lambda: stage.marks()["committed"] > 100, "the hub takes records")
        space_at = _fill(stage, client, until_lost=False)
        _go_on(stage, client, space_at)
        stage.stop_training()
        stage.judge(client, space_at)
        return stage.outcome


def hub_down(size: Size) -> Outcome:
    """The disk is full and the hub is down; then there is space, and then there is the hub."""
    with staged("48m", size) as stage, _hub_elsewhere(stage) as (start_hub, client):
        stage.train()
        wait_for(lambda: stage.marks()["durable"] > 100, "the agent's log takes records")
        space_at = _fill(stage, None, until_lost=True)
        with start_hub():
            stage.hurry()
            _go_on(stage, client, space_at)
            stage.stop_training()
            stage.judge(client, space_at)
            return stage.outcome


def ends_full(size: Size) -> Outcome:
    """The training ends while its last rows are being lost; its END arrives once there is space."""
    with staged("48m", size) as stage, _hub_elsewhere(stage) as (start_hub, client):
        stage.train()
        wait_for(lambda: stage.marks()["durable"] > 100, "the agent's log takes records")
        ballast = Ballast(stage.disk, inodes=size.is_inodes)
        wait_for(lambda: stage.marks()["lost"] > 0, "records are lost", 120)
        stage.stop_training()
        stage.outcome.refusals = ballast.refusals
        space_at = ballast.release()
        with start_hub():
            stage.hurry()
            stage.judge(client, space_at)
            return stage.outcome


def begins_full(size: Size) -> Outcome:
    """The training begins on a disk that is full already; then there is space."""
    with staged("48m", size) as stage, _hub_elsewhere(stage) as (start_hub, client), start_hub():
        places.prepare(stage.where)
        places.private_directory(stage.where.spool)
        ballast = Ballast(stage.disk, inodes=size.is_inodes)
        try:
            wait_for(lambda: ballast.refusals > 0, "the disk is full")
            stage.train()
            wait_for(lambda: stage.marks()["lost"] > 100, "the memory is full too", 60)
            assert not any(stage.where.spool.glob("*/*.chunk")), "there was no space for a single record"
        finally:
            space_at = ballast.release()
        stage.outcome.refusals, stage.outcome.full_s = ballast.refusals, space_at - ballast.since
        _go_on(stage, client, space_at)
        stage.stop_training()
        stage.judge(client, space_at)
        return stage.outcome


@contextlib.contextmanager
def _hub_elsewhere(stage: Stage) -> Iterator[tuple[Callable[[], Any], HubClient]]:
    """How to start a hub with a home on another disk, which is where the stage's agent sends to; and its client."""
    home = stage.out / "hub"
    home.mkdir(0o700)
    port = free_port()
    with serving(home, "--role", "hub", "--listen", f"127.0.0.1:{port}"):
        wait_for(lambda: ready(places.instance(home)), "the hub")
    cookie = places.instance(home).cookie
    stage.environ |= {"TRACKD_UPSTREAM": f"127.0.0.1:{port}", "TRACKD_UPSTREAM_COOKIE": str(cookie)}

    @contextlib.contextmanager
    def start() -> Iterator[None]:
        with serving(home, "--role", "hub", "--listen", f"127.0.0.1:{port}"):
            wait_for(lambda: ready(places.instance(home)), "the hub")
            client.__dict__.update(client_of(home).__dict__)
            yield

    client = HubClient("http://127.0.0.1:1", "")
    yield start, client


SCENARIOS: dict[str, Callable[..., Outcome]] = {
    "embedded": embedded,
    "hub up": hub_up,
    "hub down": hub_down,
    "ends full": ends_full,
    "begins full": begins_full,
}


def can_mount() -> bool:
    """Whether this machine lets us have a mount namespace."""
    if shutil.which("unshare") is None:
        return False
    return (
        subprocess.run([*UNSHARE, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False).returncode
        == 0
    )


def start(scenario: str, size: Size) -> subprocess.Popen[str]:
    """Begin a scenario in a namespace of its own; give the process to `outcome`."""
    command = [*UNSHARE, sys.executable, "-m", "support.diskfull", scenario, json.dumps(asdict(size))]
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    return subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def outcome(process: subprocess.Popen[str], timeout_s: float = 300) -> Outcome:
    """What came of it."""
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.terminate()
        raise
    assert process.returncode == 0, err
    return Outcome(**json.loads(out))


def main() -> None:
    """SCENARIO SIZE (JSON)"""
    scenario, size = sys.argv[1:]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # and take everything with it
    print(json.dumps(asdict(SCENARIOS[scenario](Size(**json.loads(size))))))


if __name__ == "__main__":
    main()
