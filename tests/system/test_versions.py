"""T16: idle daemons that leave while somebody comes, and two installations in one home; long: scripts/torture idle."""

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import installations, oracle, pushing
from support.fleet import Fleet
from support.installations import QUICK
from support.pushing import Writer
from support.serving import wait_for
from trackd_proto.local import instance

LEAVING = "nobody has needed this daemon"


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    found = Fleet(tmp_path, has_hub=False, rng=random.Random(1))
    found.environment |= QUICK
    yield found
    found.close()


def started(fleet: Fleet) -> int:
    return int(fleet.where.epoch.read_text())


async def test_who_comes_while_an_idle_daemon_leaves_loses_nothing(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in fleet.environment.items():
        monkeypatch.setenv(name, value)
    writer, rounds = Writer("comes"), 4
    for number in range(1, rounds + 1):
        link = await instance.reach(fleet.where)
        await pushing.push(link, [writer], 50 * number)
        await link.channel.close()
        has_left = lambda number=number: fleet.where.log.read_text().count(LEAVING) >= number  # noqa: E731
        await asyncio.to_thread(wait_for, has_left, "the daemon to find itself idle")
        await asyncio.sleep(0.03 * number)  # each comes at another moment of its leaving
    link = await instance.reach(fleet.where)
    assert (await pushing.resume(link, [writer]))[writer.writer_id].durable == 50 * rounds
    await pushing.push(link, [writer], 50 * rounds + 1, until="committed")
    await link.channel.close()
    left = fleet.where.log.read_text().count(LEAVING)
    assert left >= rounds
    assert left <= started(fleet) <= left + 1, "one was started beside another, or one ended by itself"


def test_the_newest_is_started_whoever_comes_while_it_can_be(fleet: Fleet, tmp_path: Path) -> None:
    old, new = (installations.install(tmp_path / version, version) for version in ("1.9.0", "1.10.0"))
    with installations.watching(fleet.where) as seen:
        for installed in (old, new, old):
            installed.train(fleet)
            installations.wait_until_left(fleet)
        assert seen.versions() == ["1.9.0", "1.10.0", "1.10.0"]
        (new.root / "trackd_daemon" / "app.py").write_text("raise ImportError('half removed')")
        old.train(fleet)
        installations.wait_until_left(fleet)
        assert seen.versions()[3:] == ["1.9.0"]
    assert "half removed" in fleet.where.log.read_text()
    assert installations.verdict(fleet) == (4 * 60, [])


def test_a_trainer_too_old_for_the_new_daemon_goes_on_offline(fleet: Fleet, tmp_path: Path) -> None:
    old, new = installations.install(tmp_path / "old", "1.0.0", 1), installations.install(tmp_path / "new", "9.0.0", 9)
    with installations.watching(fleet.where) as seen:
        left = old.train(fleet, is_short=False)
        wait_for(lambda: fleet.oracle.returned().get(left.number, 0) > 50, "rows of the old one")
        wait_for(lambda: seen.versions() == ["1.0.0"], "its daemon")
        other = new.train(fleet)
        (run_dir,) = (fleet.home / "trackd-runs").glob(f"*-{left.run_id}")
        wait_for(lambda: any(run_dir.glob("*.wal")), "the offline file of the old one", 60)
        before = fleet.oracle.returned()[left.number]
        wait_for(lambda: fleet.oracle.returned()[left.number] > before + 50, "more rows of it")
        assert fleet.kill_trainer(left)
        installations.wait_until_left(fleet)
        assert seen.versions() == ["1.0.0", "9.0.0"], "they took turns"
    warnings = (tmp_path / "trainers.log").read_text().count("goes on offline")
    assert warnings == 1
    new.flush(fleet, run_dir)
    returned = fleet.oracle.returned()[left.number]
    assert oracle.judge(left.number, left.pad_bytes, returned, new.rows(fleet, left)) == []
    assert len(new.rows(fleet, other)) == 60
