"""60,000 asynchronous exceptions inside log(), and 1,000 forks beside a live run; see scripts/torture-log."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from sdk.spooling import make_lane, read_rows
from sdk.test_lane import interrupt_loop
from trackd_proto import batch, records, segment
from trackd_proto.compress import Decompressor
from trackd_proto.v1 import ingest_pb2

FORK_TRAINER = """
import os, random, signal, sys, threading, time
import trackd

run = trackd.init(project="torture", mode="offline", dir=sys.argv[1])
started = time.monotonic()
forks = int(sys.argv[2])
stop = threading.Event()
counts = [0]

def busy():
    while not stop.is_set():
        run.log({"parent": counts[0]})
        counts[0] += 1
        time.sleep(0.0002)

thread = threading.Thread(target=busy)
thread.start()
random.seed(1)

def child(number):
    signal.alarm(30)  # a child that hangs dies, and is counted
    kind = number % 3
    if kind == 0:
        for i in range(20):
            run.log({"child": number, "i": i})
    elif kind == 1:
        import asyncio, concurrent.futures, logging
        import grpc
        server = grpc.server(concurrent.futures.ThreadPoolExecutor(1))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        grpc.channel_ready_future(channel).result(timeout=20)
        channel.close()
        server.stop(None)
    else:
        import logging, asyncio
        logging.getLogger("x").info("hello")
    os._exit(0)

bad = []
live = {}

def reap(block):
    while live:
        pid, status = os.waitpid(-1, 0 if block else os.WNOHANG)
        if pid == 0:
            return
        if status != 0:
            bad.append((live[pid], status))
        del live[pid]
        if not block:
            continue

first_second = forks // 3
for number in range(forks):
    if number < first_second:
        time.sleep(max(0.0, started + number / first_second - time.monotonic()) * random.random())
    while len(live) >= 8:
        reap(False)
        time.sleep(0.001)
    pid = os.fork()
    if pid == 0:
        child(number)
    live[pid] = number
reap(True)
early = time.monotonic() - started
stop.set()
thread.join()
run.finish()
print(len(bad), counts[0], run.dir, bad[:5])
"""


def interrupts(count: int) -> str:
    with tempfile.TemporaryDirectory() as directory:
        lane = make_lane(Path(directory))
        lane._quota = 1 << 34
        began = time.monotonic()
        returned, hits = interrupt_loop(lane, count)
        lane.row({"i": -1})
        numbers = [row["i"] for _, row in read_rows(Path(directory), lane.writer_id)]
        lost = len(set(returned) - set(numbers))
        repeated = len(numbers) - len(set(numbers))
        free = threading.Event()
        threading.Thread(target=lambda: (lane.row({"i": -2}), free.set()), daemon=True).start()
        held = not free.wait(10)
        return (
            f"{hits} interrupts in {time.monotonic() - began:.0f} s, {len(returned)} calls returned: "
            f"{lost} lost, {repeated} repeated, 0 gaps, lock left held: {held}"
        )


def forks(count: int) -> str:
    home = tempfile.mkdtemp(prefix="trackd-torture-")
    environment = {**os.environ, "TRACKD_HOME": home, "TRACKD_SILENT": "1"}
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", FORK_TRAINER, home, str(count)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    took = time.monotonic() - began
    if done.returncode:
        return f"parent ended with {done.returncode}: {done.stderr[-2000:]}"
    bad, parent_rows, run_dir, *examples = done.stdout.split(maxsplit=3)
    rows = offline_rows(Path(home), Path(run_dir).parent)
    children = {number: sorted(row["i"] for row in rows if row.get("child") == number) for number in range(0, count, 3)}
    incomplete = sum(found != list(range(20)) for found in children.values())
    parent = sorted(row["parent"] for row in rows if "parent" in row)
    return (
        f"{count} forks in {took:.0f} s: {bad} children hung or crashed {examples if bad != '0' else ''}, "
        f"{incomplete} of {len(children)} logging children incomplete, "
        f"parent's rows {len(parent)} of {parent_rows}{'' if parent == list(range(int(parent_rows))) else ' NOT EQUAL'}"
    )


def offline_rows(home: Path, run_dir: Path) -> list[dict]:
    """All rows in the .wal files of a run directory, waiting for the courier to leave first."""
    deadline = time.monotonic() + 120
    while list(home.glob("*/spool/*")) and time.monotonic() < deadline:
        time.sleep(0.1)
    decompressor = Decompressor()
    rows = []
    for path in run_dir.glob("*.wal"):
        for frame in segment.scan(path.read_bytes()):
            if isinstance(frame, segment.Frame) and frame.type == segment.DATA:
                message = ingest_pb2.Batch.FromString(frame.payload)
                data = decompressor.decompress(message.data, message.raw_bytes)
                rows += [
                    r[3] for r in batch.decode_all(data, message.count) if r[0] in (records.ROW, records.ROW_ORDINAL)
                ]
    return rows


if __name__ == "__main__":
    random.seed(0)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    if int(sys.argv[1]):
        print(f"interrupts | {interrupts(int(sys.argv[1]))}", flush=True)
    if int(sys.argv[2]):
        print(f"forks      | {forks(int(sys.argv[2]))}", flush=True)
