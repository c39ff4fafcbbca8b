"""T14: forks of every kind beside a live run. Each child of a logging kind writes `ROWS` rows of its own.

One program per kind; it says what happened to its children, and what is in the run's files is compared with that.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trackd_proto import batch, records, segment
from trackd_proto.compress import Decompressor
from trackd_proto.v1 import ingest_pb2

from support import processes

ROWS = 20
HANG_S = 5.0
"""A child that takes longer hangs, and is killed."""

_COMMON = """
import ctypes, json, multiprocessing, os, random, signal, sys, threading, time
import trackd

ROWS = int(os.environ["ROWS"])
THREADS = 4

def work(run, number):
    for i in range(ROWS):
        run.log({"child": number, "i": i})

def tripwire():
    bad = [name for name in ("grpc", "asyncio") if name in sys.modules]
    if bad:
        os._exit(70)  # the trainer's side must never have loaded them

def pool_child(arguments):
    run, number = arguments
    work(run, number)
    return os.getpid()

class Loader:
    # Worker processes with index and result queues, as PyTorch's DataLoader has them.
    def __init__(self, run, context, workers):
        self.indices = [context.Queue() for _ in range(workers)]
        self.results = context.Queue()
        self.workers = [context.Process(target=Loader.loop, args=(run, queue, self.results)) for queue in self.indices]
        for worker in self.workers:
            worker.start()
    @staticmethod
    def loop(run, indices, results):
        while (number := indices.get()) is not None:
            work(run, number)
            results.put((number, [number] * 100))
"""

_MAIN = """
if __name__ == "__main__":
    kind, count, hang_s = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    run = trackd.init(project="t14", mode="offline", dir=sys.argv[4])
    tripwire()
    started, stop, parent, codes, slowest = time.monotonic(), threading.Event(), [0], [], [0.0]

    def busy():
        while not stop.is_set():
            run.log({"parent": parent[0]})
            parent[0] += 1
            time.sleep(0.0002)

    thread = threading.Thread(target=busy)
    has_thread = kind not in ("C-level fork", "fork system call")
    if has_thread:
        thread.start()
    live = {}

    def reap(most):
        while len(live) > most:
            for pid in list(live):
                found, status = os.waitpid(pid, os.WNOHANG)
                took = time.monotonic() - live[pid]
                if found:
                    codes.append(os.waitstatus_to_exitcode(status))
                    slowest[0] = max(slowest[0], took)
                    del live[pid]
                elif took > hang_s:
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.0005)

    def fork_with(fork, body, most=8):
        for number in range(count):
            if number < count // 3:  # a third of them in the first second after init()
                time.sleep(random.random() * 3 / count)
            if not has_thread:
                run.log({"parent": parent[0]})
                parent[0] += 1
            pid = fork()
            if pid == 0:
                try:
                    tripwire()
                    body(number)
                finally:
                    os._exit(0 if sys.exc_info()[0] is None else 71)
            live[pid] = time.monotonic()
            reap(most)
        reap(0)

    def nested(number):
        work(run, number)
        pid = os.fork()
        if pid == 0:
            work(run, count + number)
            os._exit(0)
        if os.waitpid(pid, 0)[1]:
            os._exit(72)

    def threads(number):
        several = [threading.Thread(target=work, args=(run, count * t + number)) for t in range(THREADS)]
        for thread in several:
            thread.start()
        for thread in several:
            thread.join()

    def grpc_child(number):
        import asyncio, concurrent.futures, logging, grpc
        server = grpc.server(concurrent.futures.ThreadPoolExecutor(1))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            grpc.channel_ready_future(channel).result(timeout=20)
        server.stop(None)
        work(run, number)

    def inside_log():
        # Forked from a signal handler that interrupts log(): the lane's lock is held by the forking thread.
        forked, inside = [0], [0]
        def handler(*_):
            if forked[0] >= count:
                return
            number = forked[0]
            forked[0] += 1
            inside[0] += run._lane._lock._is_owned()
            pid = os.fork()
            if pid == 0:
                work(run, number)
                os._exit(0)
            live[pid] = time.monotonic()
            signal.setitimer(signal.ITIMER_REAL, random.uniform(0.001, 0.01))
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.001)
        i = 0
        row = {"main": 0, **{f"k{n}": n / 7 for n in range(200)}}
        while forked[0] < count:
            row["main"] = i
            run.log(row)
            i += 1
            if len(live) > 8:
                signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
                reap(4)
                signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
        signal.setitimer(signal.ITIMER_REAL, 0)
        reap(0)
        return {"main": i, "inside": inside[0]}

    def pool(method):
        context = multiprocessing.get_context(method)
        with context.Pool(8, maxtasksperchild=1 if method == "fork" else 25) as workers:
            pids = workers.map_async(pool_child, [(run, n) for n in range(count)], chunksize=1).get(timeout=900)
            workers.close()
            workers.join()
        codes.extend([0] * count)
        return {"processes": len(set(pids))}

    def loader(context):
        done = 0
        for begin in range(0, count, 200):
            loader = Loader(run, context, 8)
            numbers = range(begin, min(begin + 200, count))
            for number in numbers:
                loader.indices[number % 8].put(number)
            done += len({loader.results.get(timeout=60)[0] for _ in numbers})
            for queue in loader.indices:
                queue.put(None)
            for worker in loader.workers:
                worker.join(60)
                codes.append(worker.exitcode)
        return {"items": done}

    # Without a thread beside: a child that was forked behind Python's back waits for ever for that thread to take the
    # GIL, in any program. PyDLL: the forking thread keeps it.
    libc = ctypes.PyDLL(None)

    def c_fork():
        return libc.fork()

    def raw_fork():
        number = {"x86_64": 57}.get(os.uname().machine)  # past libc's own hooks; other machines have no fork call
        return libc.syscall(number) if number else libc.fork()

    extra = {
        "os.fork": lambda: fork_with(os.fork, lambda n: work(run, n)),
        "os.fork, children with gRPC": lambda: fork_with(os.fork, grpc_child, most=4),
        "nested fork": lambda: fork_with(os.fork, nested),
        "os.fork, threads in the child": lambda: fork_with(os.fork, threads),
        "C-level fork": lambda: fork_with(c_fork, lambda n: work(run, n)),
        "fork system call": lambda: fork_with(raw_fork, lambda n: work(run, n)),
        "fork inside log()": inside_log,
        "fork, courier dead": lambda: fork_with(os.fork, lambda n: work(run, n)),
        "multiprocessing fork": lambda: pool("fork"),
        "multiprocessing forkserver": lambda: pool("forkserver"),
        "multiprocessing spawn": lambda: pool("spawn"),
        "data loader": lambda: loader(multiprocessing.get_context("fork")),
    }[kind]() or {}
    stop.set()
    if has_thread:
        thread.join()
    run.finish()
    bad = [code for code in codes if code]
    print(json.dumps({"codes": len(codes), "bad": bad, "parent": parent[0], "dir": run.run_dir,
                      "slowest_s": slowest[0], **extra}))
"""

KINDS = (
    "os.fork", "multiprocessing fork", "multiprocessing forkserver", "multiprocessing spawn", "data loader",
    "nested fork", "os.fork, threads in the child", "fork inside log()", "fork, courier dead", "C-level fork",
    "fork system call", "os.fork, children with gRPC",
)  # fmt: skip


_WRITERS = {"nested fork": 2, "os.fork, threads in the child": 4}
"""Of each child: those that count."""


@dataclass
class Outcome:
    """Of one kind."""

    kind: str
    children: int = 0
    complete: int = 0
    """Children whose rows are all there, once, in order."""
    bad: list[int] = field(default_factory=list)
    """Exit codes of children that were killed (hung) or died."""
    parent_rows: int = 0
    slowest_s: float = 0.0
    reused: int = 0
    facts: dict[str, Any] = field(default_factory=dict)
    problem: str = ""

    @property
    def is_good(self) -> bool:
        """Nothing hung, died, or was lost."""
        return not self.problem and not self.bad and not self.reused and self.complete == self.children


def forks(kind: str, count: int, *, hang_s: float = HANG_S, rows: int = ROWS) -> Outcome:
    """`count` children of this kind beside a thread that logs."""
    found = Outcome(kind)
    with tempfile.TemporaryDirectory(prefix="trackd-t14-", ignore_cleanup_errors=True) as directory:
        home = Path(directory)
        program = home / "forks.py"  # a file: spawn and forkserver import it again
        program.write_text(_COMMON + _MAIN)
        environment = {
            **os.environ, "TRACKD_HOME": str(home), "TRACKD_SILENT": "1", "ROWS": str(rows),
        }  # fmt: skip
        command = [sys.executable, str(program), kind, str(count), str(hang_s), str(home)]
        try:
            parent = subprocess.Popen(
                command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=home
            )
            found.facts["couriers killed"] = _kill_couriers(home, parent) if "dead" in kind else 0
            out, err = parent.communicate(timeout=60 + count * (hang_s + 1))
            if parent.returncode:
                found.problem = f"parent ended with {parent.returncode}: {err[-2000:]}"
                return found
            found.facts |= json.loads(out)
            if "dead" in kind:
                _adopt(home, environment)
            _judge(found, home, count, rows)
        finally:
            processes.stop_home(home)
    return found


def _judge(found: Outcome, home: Path, count: int, rows: int) -> None:
    found.children = count * _WRITERS.get(found.kind, 1)
    found.bad, found.slowest_s = found.facts["bad"], found.facts["slowest_s"]
    seen, doubled = offline_rows(home, Path(found.facts["dir"]))
    found.reused = doubled
    by_child: dict[int, list[int]] = {}
    for row in seen:
        if "child" in row:
            by_child.setdefault(row["child"], []).append(row["i"])
    found.complete = sum(sorted(numbers) == list(range(rows)) for numbers in by_child.values())
    for kind in ("parent", "main"):
        wanted, here = found.facts.get(kind, 0), sorted(row[kind] for row in seen if kind in row)
        if here != list(range(wanted)):
            found.problem = f"{len(here)} of {wanted} rows of the parent's ({kind})"
    found.parent_rows = found.facts["parent"]
    if "dead" in found.kind and not found.facts["couriers killed"]:
        found.problem = "no courier was killed"


def _kill_couriers(home: Path, parent: subprocess.Popen[str]) -> int:
    """Kill the courier as soon as it is there, and every one that follows; how many."""
    killed = 0
    deadline = time.monotonic() + 30
    while parent.poll() is None and time.monotonic() < deadline and not killed:
        for process in processes.of_home(home):
            if processes.is_ours(process) and process.pid != parent.pid:
                with contextlib.suppress(ProcessLookupError):  # what launches a courier is gone at once
                    os.kill(process.pid, signal.SIGKILL)
                    killed += 1
        time.sleep(0.01)
    return killed


def _adopt(home: Path, environment: dict[str, str]) -> None:
    """The next trackd process of this user sends what is left."""
    program = "import trackd; trackd.init(project='next', mode='offline').finish()"
    subprocess.run([sys.executable, "-c", program], env=environment, cwd=home, check=True, timeout=60)


def offline_rows(home: Path, run_dir: Path) -> tuple[list[dict[str, Any]], int]:
    """All rows in the files of an offline run, once its couriers have left, and how many seqs came twice."""
    deadline = time.monotonic() + 120
    while list(home.glob("*/spool/*")) and time.monotonic() < deadline:
        time.sleep(0.1)
    decompressor = Decompressor()
    rows: list[dict[str, Any]] = []
    seqs: Counter[tuple[bytes, int]] = Counter()
    for path in run_dir.glob("*.wal"):
        for frame in segment.scan(path.read_bytes()):
            if isinstance(frame, segment.Frame) and frame.type == segment.DATA:
                message = ingest_pb2.Batch.FromString(frame.payload)
                data = decompressor.decompress(message.data, message.raw_bytes)
                seqs.update((message.writer_id, message.first_seq + n) for n in range(message.count))
                rows += [
                    r[3] for r in batch.decode_all(data, message.count) if r[0] in (records.ROW, records.ROW_ORDINAL)
                ]
    return rows, sum(count - 1 for count in seqs.values())
