"""Measures that only trackd has: what happens behind log()."""

import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from benchlib import hub, runner
from benchlib.measures import Options, Table, measure

TOOL = "trackd"
COMMAND = str(Path(sys.executable).with_name("trackd"))


def _own(values: dict[str, float]) -> Table:
    return {row: {TOOL: value} for row, value in values.items()}


@measure
def sustained(options: Options) -> Table:
    """One process, 5 scalars, as fast as it can; memory of courier and daemon meanwhile."""
    if TOOL not in options.tools:
        return {}
    with runner.place() as there, _watch_memory(there) as peaks:
        runner.run(there, "life", TOOL, calls=3)
        speed = runner.run(there, "sustained", TOOL, calls=options.scaled(1_500_000))
    with runner.place(TRACKD_UPSTREAM=f"127.0.0.1:{_free_port()}") as there:
        runner.run(there, "life", TOOL, calls=3)
        alone = runner.run(there, "sustained", TOOL, calls=options.scaled(1_500_000), has_hub=False)
    return _own(
        {
            "calls until durable, hub elsewhere (per s)": alone["durable"],
            "calls until durable (per s)": speed["durable"],
            "points until queryable (per s)": speed["queryable"],
            "memory of the courier (MB)": peaks.get("courier", 0) / 1e6,
            "memory of agent and hub, ingesting (MB)": peaks.get("daemon", 0) / 1e6,
        }
    )


@measure
def freshness(options: Options) -> Table:
    """log() to the HTTP answer that contains it, with the hub in the daemon and in a process of its own."""
    if TOOL not in options.tools:
        return {}
    trials = options.scaled(100)
    with runner.place() as there:
        embedded = runner.run(there, "freshness", TOOL, trials=trials)
    with separate_hub() as (settings, cookie), runner.place(**settings) as there, _watch_memory(there) as peaks:
        separate = runner.run(there, "freshness", TOOL, trials=trials, cookie=cookie)
    return _own(
        {
            "freshness, embedded hub: p50 (ms)": embedded["p50"],
            "freshness, embedded hub: p95 (ms)": embedded["p95"],
            "freshness, separate hub: p50 (ms)": separate["p50"],
            "freshness, separate hub: p95 (ms)": separate["p95"],
            "memory of the agent (MB)": peaks.get("daemon", 0) / 1e6,
        }
    )


@measure
def charts(options: Options) -> Table:
    """A chart of one long series at many zooms."""
    if TOOL not in options.tools:
        return {}
    points = options.scaled(1_000_000)
    with runner.place() as there:
        seen = runner.run(there, "charts", TOOL, points=points)
    what = "1 M" if points == 1_000_000 else f"{points:,}"
    return _own(
        {
            f"chart over {what} points: p50 (ms)": seen["p50"],
            f"chart over {what} points: p95 (ms)": seen["p95"],
            f"chart over {what} points: zooms that miss a spike": seen["missed"],
        }
    )


@measure
def hard_life(options: Options) -> Table:
    """init() with an upstream that never answers and in a crowded git repository; finish() without a daemon."""
    if TOOL not in options.tools:
        return {}
    found: dict[str, float] = {}
    with black_hole() as address, runner.place(TRACKD_UPSTREAM=address) as there:
        seen = [runner.run(there, "life", TOOL) for _ in range(3)]
        found["init(), upstream that never answers (ms)"] = statistics.median(one["init"] for one in seen)
        found["finish() and process exit, upstream that never answers (ms)"] = _finish(seen)
    files = options.scaled(200_000)
    with runner.place() as there:
        crowd(there.directory, files)
        seen = [runner.run(there, "life", TOOL) for _ in range(3)]
        found[f"init(), {files:,} untracked files in git (ms)"] = statistics.median(one["init"] for one in seen)
    for signal_name, what in (("SIGSTOP", "stopped"), ("SIGKILL", "killed")):
        with runner.place() as there:
            seen = [runner.run(there, "interrupted", TOOL, signal_name=signal_name)]
            if seen[0]["daemons"] == 0:
                raise runner.ProbeError("no daemon was found to send a signal to")
            found[f"finish() and process exit, daemon {what} (ms)"] = _finish(seen)
    return _own(found)


def _finish(seen: list[runner.Result]) -> float:
    return float(statistics.median((one["exited"] - one["before_finish"]) * 1e3 for one in seen))


@measure
def trackd_disk(options: Options) -> Table:
    """The store of a run after compaction."""
    if TOOL not in options.tools:
        return {}
    found = {}
    for what, decimals in (("full doubles", None), ("four decimals", 4)):
        with runner.place() as there:
            done = runner.run(there, "disk", TOOL, calls=options.scaled(200_000), decimals=decimals)
            found[f"disk, {what} (bytes per point)"] = _compacted(there) / done["points"]
    return _own(found)


def _compacted(there: runner.Place) -> int:
    """Bytes of the store when the daemon has ended and everything has been compacted."""
    subprocess.run([COMMAND, "stop"], env=there.environment(), check=True, stdout=subprocess.DEVNULL)
    (store,) = there.directory.glob("trackd/*/store")
    program = "import sys; from benchlib.compact import compact; compact(sys.argv[1])"
    subprocess.run([sys.executable, "-c", program, str(store)], env=there.environment(), check=True)
    # The reserve is one per store, not of a run: free space that is held back for deleting and compacting.
    files = (path for path in store.rglob("*") if path.is_file() and path.name != "reserve")
    return sum(path.stat().st_blocks * 512 for path in files)


@contextmanager
def separate_hub() -> Iterator[tuple[dict[str, str], str]]:
    """A hub in a process of its own; yields the settings of an agent that uploads to it, and its cookie file."""
    with runner.place() as there:
        address = f"127.0.0.1:{_free_port()}"
        command = [COMMAND, "serve", "--role", "hub", "--listen", address]
        with subprocess.Popen(
            command, env=there.environment(), cwd=there.directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            try:
                deadline = time.monotonic() + 30
                home = there.directory / "trackd"
                while not (cookie := hub.cookie_of(home)) or not list(home.glob("*/daemon.json")):
                    if process.poll() is not None or time.monotonic() > deadline:
                        raise runner.ProbeError("the separate hub did not start")
                    time.sleep(0.05)
                yield {"TRACKD_UPSTREAM": address, "TRACKD_UPSTREAM_COOKIE": str(cookie)}, str(cookie)
            finally:
                process.terminate()


@contextmanager
def black_hole() -> Iterator[str]:
    """An address that takes connections and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def crowd(directory: Path, files: int) -> None:
    """Makes a git repository with so many untracked files."""
    subprocess.run(["git", "init", "-q", str(directory)], check=True)
    for start in range(0, files, 1000):
        folder = directory / f"data/{start // 1000}"
        folder.mkdir(parents=True)
        for number in range(min(1000, files - start)):
            (folder / f"{number}.txt").touch()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def _watch_memory(there: runner.Place) -> Iterator[dict[str, int]]:
    """Looks every 100 ms; the highest resident memory seen of a courier and of the daemon, in bytes."""
    peaks: dict[str, int] = {}
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.1):
            for process in there.processes():
                try:
                    words = " ".join(process.cmdline())
                    kind = "courier" if "trackd.courier" in words else "daemon" if "serve" in words else ""
                    peaks[kind] = max(peaks.get(kind, 0), process.memory_info().rss)
                except psutil.Error:
                    continue

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield peaks
    finally:
        done.set()
        watcher.join()
