"""Which sessions a courier takes over while their process lives: none that is just starting, by whatever clock."""

import os
import time
from pathlib import Path

import msgspec
import pytest
from trackd.courier.main import _is_orphan
from trackd.spool import start_ticks
from trackd_proto import spool, version


@pytest.mark.parametrize(
    ("passed_s", "is_orphan"), [(0.0, False), (10.0, True), (-3600.0, True)], ids=["new", "old", "clock set back"]
)
def test_a_session_whose_process_lives_is_taken_over_when_its_own_courier_has_had_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, passed_s: float, is_orphan: bool
) -> None:
    pid = os.getpid()
    info = spool.SessionInfo(version.SPOOL_FORMAT, "", "", pid, 0, "", start_ticks(pid))
    (tmp_path / "session.json").write_bytes(msgspec.json.encode(info))
    changed_s = tmp_path.stat().st_ctime
    monkeypatch.setattr(time, "time", lambda: changed_s + passed_s)
    assert _is_orphan(tmp_path) is is_orphan
