"""SIGKILL at any moment of an ingest or a compaction: after resume() everything is there exactly once."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.store_history import BORN_US, Script, writer_id
from trackd_daemon.ports import ChartQuery
from trackd_daemon.store import EmbeddedStore
from trackd_proto import records

KILLS = 20
ROWS = 6000
WRITERS = 4


def scripts() -> list[Script]:
    """What four writers have to say."""
    result = []
    for number in range(WRITERS):
        script = Script(writer_id(number), f"a{number}", BORN_US + number, run_id=f"r{number}").start()
        for row in range(ROWS):
            script.row(row, {"loss": row + number / 8, "n": row, "s": f"s{row}"}, BORN_US + 1000 * row)
        script.add(records.EXIT, BORN_US + 10**9, 0, {"state": "finished", "exit_code": 0})
        result.append(script)
    return result


def feed(directory: Path, seed: int) -> None:
    """Send everything that is not there yet; compact now and then."""
    rng = random.Random(seed)
    store = EmbeddedStore.open(directory)
    everything = scripts()
    following = store.resume([s.writer_id for s in everything])
    print("ready", flush=True)
    while True:
        group = []
        for script in everything:
            seq = following[script.writer_id]
            if seq <= len(script.written):
                # Senders repeat: begin up to 50 records before what is expected.
                group.append(script.batch(max(1, seq - rng.randrange(50)), rng.randrange(51, 120)))
        if not group:
            break
        print("sending", flush=True)
        for outcome in store.ingest(group):
            following[outcome.writer_id] = outcome.next_seq
        if rng.random() < 0.1:
            store.compact()
    store.close()
    print("done", flush=True)


@pytest.mark.timeout(300)
def test_killed_at_random_and_resumed(tmp_path: Path) -> None:
    directory = tmp_path / "store"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    rng = random.Random(5)
    kills = 0
    done = False
    while not done:
        command = [sys.executable, __file__, str(directory), str(kills)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n", "the store did not open after a kill"
        if kills < KILLS:
            # By the child's own progress, not by the clock: a fast machine would be done before the last kill.
            for _ in range(rng.randrange(1, 3)):
                assert child.stdout.readline() == "sending\n", "done before the last kill: make ROWS larger"
            time.sleep(rng.uniform(0.0, 0.02))
            child.send_signal(signal.SIGKILL)
            kills += 1
        else:
            done = True
        child.communicate()
        assert not done or child.returncode == 0
    assert kills == KILLS
    check(directory)


def check(directory: Path) -> None:
    """Every row once, every point once."""
    store = EmbeddedStore.open(directory)
    try:
        for number in range(WRITERS):
            run_id = f"r{number}"
            rows = [row for rows in store.scan("p", run_id) for row in rows]
            assert [row["_step"] for row in rows] == list(range(ROWS))
            assert [row["loss"] for row in rows] == [step + number / 8 for step in range(ROWS)]
            assert [row["n"] for row in rows] == list(range(ROWS))
            assert [row["s"] for row in rows] == [f"s{step}" for step in range(ROWS)]
            assert {k["key"]: k["count"] for k in store.keys("p", run_id)} == {"loss": ROWS, "n": ROWS, "s": ROWS}
            totals = [s.total for s in store.chart(ChartQuery([("p", run_id)], ["loss", "n"]))]
            assert totals == [ROWS, ROWS], "a point is stored twice, though the row shows it once"
            run = store.run("p", run_id)
            assert run is not None
            assert (run["rows"], run["state"], run["version"]) == (ROWS, "finished", ROWS + 2)
        stats = store.stats()
        assert stats["part_points"] + stats["hot_points"] == WRITERS * ROWS * 3
    finally:
        store.close()


if __name__ == "__main__":
    feed(Path(sys.argv[1]), int(sys.argv[2]))
