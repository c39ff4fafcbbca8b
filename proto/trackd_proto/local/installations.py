"""Which installation's daemon is started, where several of different versions share one home.

The newest that ever owned the directory, while it exists: data in a newer format is for no older daemon, and two
installations whose clients come and go must not take turns. Its command stands in daemon.json and outlives the daemon.
"""

import importlib.util
import sys
from pathlib import Path
from typing import Final

from trackd_proto.layout import Installation, Published
from trackd_proto.version import VERSION

# Forks once, so that the daemon is nobody's child: who starts it sees no SIGCHLD and reaps at once.
_BOOT: Final = """
import os, sys
if os.fork(): os._exit(0)
site = next((i for i, p in enumerate(sys.path) if p.endswith("-packages")), len(sys.path))
sys.path[site:site] = [p for p in {paths!r} if p not in sys.path]
from trackd_daemon.cli import main
main()
"""


def own() -> Installation:
    """This one, whatever PYTHONPATH says."""
    places = []
    for package in ("trackd_daemon", "trackd_proto", "grpc", "msgspec"):
        spec = importlib.util.find_spec(package)
        for place in (spec.submodule_search_locations or ()) if spec else ():
            places.append(str(Path(place).parent))
    paths = list(dict.fromkeys(places))
    command = [sys.executable, "-I", "-c", _BOOT.format(paths=paths), "serve", "--spawned"]
    return Installation(VERSION, command, str(Path(places[0], "trackd_daemon")) if places else "")


def newest(known: Installation | None, ours: Installation) -> Installation:
    """The newer of the two that still exists. Of one place only what is there now counts: `ours`."""
    if known is None or known.place == ours.place or not is_newer(known.version, ours.version):
        return ours
    return known if is_there(known) else ours


def to_start(published: Published | None) -> list[Installation]:
    """Whose daemon to start, the best first; the next one only if that cannot be started."""
    ours = own()
    best = newest(published.newest if published is not None else None, ours)
    return [ours] if best == ours else [best, ours]


def is_there(installation: Installation) -> bool:
    """Whether its interpreter and its code have not been removed."""
    return bool(installation.command) and Path(installation.command[0]).exists() and Path(installation.place).exists()


def is_newer(version: str, than: str) -> bool:
    """By the numbers of both."""

    def numbers(text: str) -> list[int]:
        return [int(part) if part.isdecimal() else 0 for part in text.split(".")]

    return numbers(version) > numbers(than)
