"""What a daemon does to its own process: the memory that it has freed stays small."""

import subprocess
import sys

import pytest

THREADS = """
import sys, threading
from pathlib import Path
from trackd_daemon.lifecycle import process
if "settle" in sys.argv:
    process.settle()
process.keep_freed_memory()
turn, met = threading.Lock(), threading.Barrier(16)
def work():
    met.wait()  # all of them live at once, so that none takes over the heap of one that has ended
    small = bytes(100_000)
    met.wait()
    with turn:
        blocks = [bytearray(1_000_000) for _ in range(24)]
        del blocks
    met.wait()
threads = [threading.Thread(target=work) for _ in range(16)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(int(fields["RssAnon"].split()[0]) // 1024)
"""

BETWEEN = """
from pathlib import Path
from trackd_daemon.lifecycle import process
def resident():
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) // 1024
process.keep_freed_memory()
blocks = [bytes(20_000) for _ in range(4000)]
kept = blocks[9::10]
del blocks
before = resident()
process.give_back_freed_memory()
print(before - resident())
"""


def _mib(*arguments: str, program: str = THREADS) -> int:
    out = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    return int(out.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc")
def test_threads_that_worked_one_after_the_other_do_not_each_keep_what_they_freed() -> None:
    if (kept := _mib()) < 150:
        pytest.skip(f"this malloc keeps only {kept} MiB by itself")
    assert _mib("settle") < 100


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc")
def test_memory_freed_between_what_is_in_use_goes_back_to_the_kernel() -> None:
    assert _mib(program=BETWEEN) > 40


def test_threads_for_blocking_work_are_all_there_from_the_start() -> None:
    program = (
        "import threading; from trackd_daemon.lifecycle import process\n"
        "pool = process.workers()\n"
        "before = threading.active_count()\n"
        "met = threading.Barrier(process.WORKERS)\n"
        "[call.result() for call in [pool.submit(met.wait, 30) for _ in range(process.WORKERS)]]\n"
        "print(threading.active_count() - before)"
    )
    assert _mib(program=program) == 0
