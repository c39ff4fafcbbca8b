"""Runs every probe in a thread of its own until one common deadline: a dead NFS server or a hung driver costs one line
of the answer, never the others."""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from trackd_daemon.doctor.facts import Failed


def gather(probes: Mapping[str, Callable[[], Any]], timeout_s: float) -> dict[str, Any]:
    """What each probe returned, or Failed. A probe that is late is left behind in a daemon thread."""
    found: dict[str, Any] = {}

    def run(name: str, probe: Callable[[], Any]) -> None:
        try:
            found[name] = probe()
        except Exception as error:  # whatever it is, it is what the user wants to know
            found[name] = Failed(f"{type(error).__name__}: {error}")

    threads = [
        threading.Thread(target=run, args=item, name=f"doctor {item[0]}", daemon=True) for item in probes.items()
    ]
    deadline = time.monotonic() + timeout_s
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(deadline - time.monotonic(), 0))
    late = Failed(f"no answer within {timeout_s:g} s")
    # A copy: whoever is late may still write.
    answered = dict(found)
    return {name: answered.get(name, late) for name in probes}
