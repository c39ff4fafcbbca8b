"""`trackd flush`: offline files reach the hub exactly once, and the exit code tells the truth."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.pushing import Writer
from trackd_proto import segment
from trackd_proto.compress import Compressor
from trackd_proto.layout import Instance
from trackd_proto.local import places
from trackd_proto.local.hub_client import HubClient
from trackd_proto.settings import Settings
from trackd_proto.v1 import ingest_pb2

CLI = [sys.executable, "-c", "from trackd_daemon.cli import main; main()"]


@pytest.fixture
def where(trackd_home: Path) -> Instance:
    return places.instance(trackd_home)


def write_offline(run_dir: Path, writer: Writer, last: int, size: int = 50, skipped: range = range(0)) -> Path:
    """An offline file as the courier writes one; batches that begin in `skipped` are left out."""
    run_dir.mkdir(parents=True, exist_ok=True)
    path = run_dir / f"{writer.writer_id.hex()}.wal"
    salt = segment.salt_of(writer.writer_id, 1)
    compress = Compressor().compress
    data = [segment.encode_header(writer.writer_id, 1, 1, time.time_ns())]
    for first in range(1, last + 1, size):
        if first in skipped:
            continue
        batch = writer.batch(first, min(first + size - 1, last))
        batch.codec, batch.raw_bytes, batch.data = ingest_pb2.CODEC_ZSTD, len(batch.data), compress(batch.data)
        data.append(segment.encode_frame(segment.DATA, len(data), batch.SerializeToString(), salt))
    path.write_bytes(b"".join(data))
    return path


def flush(*arguments: str) -> tuple[int, dict[str, object]]:
    done = subprocess.run([*CLI, "flush", "--json", *arguments], capture_output=True, text=True, timeout=100)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def held(where: Instance, run_id: str) -> tuple[list[int], list[dict[str, object]]]:
    """The values of a run and its writers, as the hub has them."""
    client = HubClient.of_settings(Settings(home=str(where.home)))
    values = [row["value"] for row in client.rows(f"/runs/p/{run_id}/scan")]
    return values, client.get(f"/runs/p/{run_id}/writers")["writers"]


def test_offline_runs_arrive_once_also_when_flushed_twice_and_moved(where: Instance, tmp_path: Path) -> None:
    runs = tmp_path / "trackd-runs"
    write_offline(runs / "run-1", first := Writer("one"), 1000)
    write_offline(runs / "run-1", Writer("one", writer_id=bytes(15) + b"2"), 300)
    write_offline(runs / "run-2", Writer("two"), 70)
    code, said = flush(str(runs))
    assert (code, said["committed"], said["records"], said["problems"]) == (0, True, 1370, [])
    shutil.move(runs, tmp_path / "moved")
    assert flush(str(tmp_path / "moved"))[0] == 0
    values, writers = held(where, "one")
    assert values == list(range(2, 1001)), "rows of one step are shown as one"
    assert sorted(w["records"] for w in writers) == [300, 1000]
    assert held(where, "two")[0] == list(range(2, 71))
    assert first.writer_id.hex() in {w["writer_id"] for w in writers}


def test_killed_in_between_it_goes_on(where: Instance, tmp_path: Path) -> None:
    write_offline(tmp_path / "run", Writer("big"), 60_000, size=200)
    for delay_s in (1.0, 1.5, 2.0):
        process = subprocess.Popen([*CLI, "flush", str(tmp_path / "run")], stderr=subprocess.DEVNULL)
        try:
            process.wait(delay_s)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
    code, said = flush(str(tmp_path / "run"))
    assert (code, said["committed_records"]) == (0, 60_000)
    values, (writer,) = held(where, "big")
    assert values == list(range(2, 60_001))
    assert (writer["records"], writer["losses"]) == (60_000, [])


def test_what_is_damaged_is_declared_and_the_rest_arrives(where: Instance, tmp_path: Path) -> None:
    path = write_offline(tmp_path / "run", Writer("hurt"), 500)
    data = bytearray(path.read_bytes())
    frames = list(segment.scan(bytes(data)))
    data[frames[3].offset + 60] ^= 1  # records 151 to 200
    path.write_bytes(bytes(data))
    assert flush(str(tmp_path / "run"))[0] == 0
    values, (writer,) = held(where, "hurt")
    assert values == [*range(2, 151), *range(201, 501)]
    assert writer["losses"] == [{"first_seq": 151, "count": 50, "reason": "damaged"}]


def test_without_a_hub_it_says_so(where: Instance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_offline(tmp_path / "run", Writer("far", route="127.0.0.1:1"), 100)
    code, said = flush("--wait", "2", str(tmp_path / "run"))
    assert (code, said["committed"], said["pending_records"]) == (1, False, 100)
    assert "127.0.0.1:1" in str(said["problems"])


def test_an_empty_directory_is_a_mistake(trackd_home: Path, tmp_path: Path) -> None:
    done = subprocess.run([*CLI, "flush", str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert str(tmp_path) in done.stderr


def test_the_log_of_an_agent_is_no_offline_run(where: Instance, tmp_path: Path) -> None:
    """Of another machine's home, say. Taken for one writer's file, the records of the others were declared lost."""
    home = tmp_path / "home"
    write_offline(home / "trackd-runs" / "run", Writer("kept"), 60)
    log = home / "host" / "wal" / "0000000000000001.wal"
    one, two = Writer("one"), Writer("two")
    first, second = (write_offline(tmp_path / "frames", writer, 100).read_bytes() for writer in (one, two))
    frames = [segment.encode_header(one.writer_id, 1, 1, time.time_ns())]
    found = [frame for data in (first, second) for frame in segment.scan(data) if isinstance(frame, segment.Frame)]
    for lsn, frame in enumerate(found, 1):
        frames.append(segment.encode_frame(frame.type, lsn, frame.payload, segment.salt_of(one.writer_id, 1)))
    log.parent.mkdir(parents=True)
    log.write_bytes(b"".join(frames))
    code, said = flush(str(home))
    assert (code, said["records"], said["problems"]) == (0, 60, [])
    done = subprocess.run([*CLI, "flush", str(log)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "several writers" in done.stderr and str(log) in done.stderr
    client = HubClient.of_settings(Settings(home=str(where.home)))
    assert [run["run_id"] for run in client.get("/projects/p/runs")["runs"]] == ["kept"]
