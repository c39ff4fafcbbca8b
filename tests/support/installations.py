"""T16: installations of different versions, each a whole copy of this code, and what is trained with them in a home."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trackd_proto.layout import Instance
from trackd_proto.local import instance
from trackd_proto.local.hub_client import HubError

from support import oracle
from support.fleet import Fleet, Trainer
from support.looking import looking
from support.serving import wait_for

ROOT = Path(__file__).parents[2]
PACKAGES = ("sdk/trackd", "daemon/trackd_daemon", "proto/trackd_proto")
QUICK = {"TRACKD_IDLE_EXIT_S": "0.001", "TRACKD__WATCH_S": "0.3"}
"""A daemon that leaves within a third of a second of being needed by nobody."""


_READ = """
import json, sys
from trackd_proto.local.hub_client import HubClient
from trackd_proto.settings import load
print(json.dumps(list(HubClient.of_settings(load().settings).rows(sys.argv[1]))))
"""


@dataclass(frozen=True)
class Installed:
    """One of them."""

    version: str
    root: Path

    def train(self, fleet: Fleet, *, is_short: bool = True) -> Trainer:
        """A training process that imports this trackd."""
        return fleet.train(is_short=is_short, PYTHONPATH=str(self.root))

    def flush(self, fleet: Fleet, directory: Path) -> None:
        """Its `trackd flush`."""
        self._run(fleet, "from trackd_daemon.cli import main; main()", "flush", str(directory))

    def rows(self, fleet: Fleet, trainer: Trainer) -> list[dict[str, Any]]:
        """What the hub has of a run, as its own reader sees it, from a daemon that stays."""
        path = f"/runs/{oracle.PROJECT}/{trainer.run_id}/scan"
        found: list[dict[str, Any]] = json.loads(self._run(fleet, _READ, path))
        return found

    def _run(self, fleet: Fleet, program: str, *arguments: str) -> str:
        environ = fleet.environment | {"PYTHONPATH": str(self.root), "TRACKD_IDLE_EXIT_S": "0"}
        command = [sys.executable, "-c", program, *arguments]
        return subprocess.run(command, env=environ, check=True, timeout=120, stdout=subprocess.PIPE, text=True).stdout


def install(root: Path, version: str, protocol: int = 1) -> Installed:
    """This code under another version number, of which client and daemon speak one protocol."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, root / Path(package).name)
    path = root / "trackd_proto" / "version.py"
    text = path.read_text()
    for name, value in {"VERSION": f'"{version}"', "PROTOCOL_MIN": protocol, "PROTOCOL_MAX": protocol}.items():
        text, count = re.subn(rf"^{name}: Final = .*$", f"{name}: Final = {value}", text, flags=re.MULTILINE)
        assert count == 1, name
    path.write_text(text)
    return Installed(version, root)


@dataclass
class Seen:
    """Which daemons a home has had: (epoch, version), in that order, as they said it in daemon.json."""

    daemons: list[tuple[int, str]] = field(default_factory=list)

    def versions(self) -> list[str]:
        """Of the daemons, one after the other."""
        return [version for _, version in self.daemons]


@contextmanager
def watching(where: Instance) -> Iterator[Seen]:
    """Looks at daemon.json until the end."""
    found = Seen()

    def look() -> None:
        published = instance.read_published(where)
        if published is not None and (published.epoch, published.version) not in found.daemons:
            found.daemons.append((published.epoch, published.version))

    with looking(look):
        yield found


def wait_until_left(fleet: Fleet, timeout_s: float = 60.0) -> None:
    """Until nobody is trained and the daemon has left because nobody needs it."""
    for trainer in fleet.trainers:
        trainer.process.wait(timeout_s)
    wait_for(
        lambda: not fleet.agent_pids() and not any(fleet.where.spool.iterdir()), "the idle daemon to leave", timeout_s
    )


def verdict(fleet: Fleet, timeout_s: float = 60.0) -> tuple[int, list[str]]:
    """Rows in the hub, and what is wrong with them, read from a daemon that stays."""
    instance.spawn(fleet.where, environ=fleet.environment | {"TRACKD_IDLE_EXIT_S": "0"}, timeout_s=timeout_s)
    problems: list[str] = []

    def is_all_there() -> bool:
        try:
            problems[:] = fleet.verdict()[1]
        except HubError as error:  # it is still opening
            problems[:] = [str(error)]
        return not problems

    try:
        wait_for(is_all_there, "every row", timeout_s)
    except AssertionError:
        return 0, problems
    return fleet.verdict()[0], []
