"""What the SDK does not do to the process that it lives in: load heavy modules, start threads, open sockets."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = """
import json, os, stat, sys
before = set(sys.modules), dict(os.environ), os.getcwd()
children = os.path.exists(f"/proc/self/task/{os.getpid()}/children")
import signal
handlers = {s: signal.getsignal(s) for s in signal.valid_signals() if s not in (signal.SIGTERM, signal.SIGHUP)}
import trackd
at_import = sorted(set(sys.modules) - before[0])
run = trackd.init(project="light", mode=sys.argv[1])
for i in range(1000):
    trackd.log({"loss": 1 / (i + 1), "nested": {"a": i}, "text": "x"})
run.config.update({"lr": 0.1})
run.summary["best"] = 1
sockets = [fd for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")
           and stat.S_ISSOCK(os.stat(f"/proc/self/fd/{fd}").st_mode)]
facts = {
    "at_import": at_import,
    "at_end": sorted(set(sys.modules) - before[0]),
    "threads": len(os.listdir("/proc/self/task")),
    "sockets": sockets,
    "environment": before[1] == dict(os.environ),
    "directory": before[2] == os.getcwd(),
    "children": open(f"/proc/self/task/{os.getpid()}/children").read() if children else "",
    "handlers": [s for s, h in handlers.items() if signal.getsignal(s) != h],
}
run.finish()
facts["after_finish"] = sorted(set(sys.modules) - before[0])
facts["threads_after_finish"] = len(os.listdir("/proc/self/task"))
print(json.dumps(facts))
"""

HEAVY = ("grpc", "google.protobuf", "numpy", "torch", "asyncio", "multiprocessing", "concurrent.futures", "ssl", "rich",
         "psutil", "tenacity", "trackd_proto.v1", "trackd.courier", "trackd.api", "IPython", "http.client")  # fmt: skip


def facts(mode: str, directory: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, mode], cwd=directory, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("mode", ["offline", "online", "disabled"])
def test_the_training_process_stays_as_it_was(mode: str, trackd_home: Path, tmp_path: Path) -> None:
    found = facts(mode, tmp_path)
    for moment in ("at_import", "at_end", "after_finish"):
        heavy = [name for name in found[moment] if any((name + ".").startswith(h + ".") for h in HEAVY)]
        assert not heavy, f"{moment}: {heavy}"
    assert found["threads"] == found["threads_after_finish"] == 1
    assert found["sockets"] == []
    assert found["children"] == "", "the courier must not be the trainer's child"
    assert found["handlers"] == []
    assert found["environment"]
    assert found["directory"]
