"""Gigabytes of offline rows through `trackd flush`; see scripts/torture-offline."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

TRACKD = str(Path(sys.executable).parent / "trackd")
TRAINER = """
import sys, time, trackd
run = trackd.init(project="bulk", id="bulk0001", mode="offline", dir=sys.argv[1])
keys = [f"layer{i:03}/grad_norm" for i in range(100)]
rows = int(float(sys.argv[2]) * 2**30 / 2815)
began = time.perf_counter()
for i in range(rows):
    run.log({key: (i * 7919 + n * 104729) % 1000003 / 1000003 for n, key in enumerate(keys)})
took = time.perf_counter() - began
run.flush(durable=True, timeout_s=600)
run.finish()
print(rows, took, run._lane.watermarks().lost)
"""


def flush(directory: Path, kill_after_s: float | None = None) -> tuple[int, float, str]:
    """Exit code, seconds, last line of one `trackd flush`."""
    began = time.monotonic()
    process = subprocess.Popen([TRACKD, "flush", str(directory), "--wait", "3000"], stdout=subprocess.PIPE, text=True)
    if kill_after_s is not None:
        time.sleep(kill_after_s)
        process.send_signal(signal.SIGKILL)
    out, _ = process.communicate()
    return process.returncode, time.monotonic() - began, (out.strip().splitlines() or [""])[-1]


def daemon(home: Path) -> psutil.Process:
    (path,) = home.glob("*/daemon.json")
    return psutil.Process(json.loads(path.read_text())["pid"])


def wait_for_courier(home: Path) -> None:
    while list(home.glob("*/spool/*")):
        time.sleep(0.2)


def main(gib: float) -> None:
    home = Path(tempfile.mkdtemp(prefix="trackd-bulk-"))
    os.environ |= {"TRACKD_HOME": str(home), "TRACKD_SILENT": "1"}
    here, there = home / "here", home / "there"
    here.mkdir()
    try:
        done = subprocess.run(
            [sys.executable, "-c", TRAINER, str(here), str(gib)], capture_output=True, text=True, check=True
        )
        rows, took, lost = done.stdout.split()
        wait_for_courier(home)
        assert not list(home.glob("*/daemon.json")), "an offline run needs no daemon"
        here.rename(there)
        (directory,) = there.glob("**/run-*")
        on_disk = sum(path.stat().st_size for path in directory.glob("*.wal"))
        print(
            f"logged   | {rows} rows of 100 values ({gib} GiB) in {float(took):.0f} s, {lost} lost;"
            f" {on_disk / 2**20:.0f} MiB on disk"
        )
        code, took_s, _ = flush(directory, kill_after_s=10)
        daemon(home).kill()
        print(f"flush    | killed after {took_s:.0f} s (exit {code}), the daemon too")
        code, took_s, line = flush(directory)
        print(f"flush    | exit {code} in {took_s:.0f} s: {line}; daemon {daemon(home).memory_info().rss / 1e6:.0f} MB")
        code, took_s, line = flush(directory)
        print(f"again    | exit {code} in {took_s:.0f} s: {line}")
        verified = subprocess.run(
            [TRACKD, "verify", "bulk/bulk0001", "--dir", str(directory)], capture_output=True, text=True, check=False
        )
        print(f"verify   | exit {verified.returncode}: {verified.stdout.strip().splitlines()[-1]}")
        shown = json.loads(
            subprocess.run(
                [TRACKD, "show", "bulk/bulk0001", "--json"], capture_output=True, text=True, check=True
            ).stdout
        )
        print(f"hub      | {shown['rows']} rows, state {shown['state']}, {shown['lost_records']} lost")
    finally:
        subprocess.run([TRACKD, "stop"], check=False, capture_output=True)
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main(float(sys.argv[1]))
