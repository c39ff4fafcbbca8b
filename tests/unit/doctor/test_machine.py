"""trackd doctor: what is wrong with the machine is named, with what to do about it."""

from dataclasses import replace
from typing import Any

import pytest
from trackd_daemon.doctor import facts, machine
from trackd_daemon.doctor.findings import Finding, is_trouble, worst_first
from trackd_proto.limits import GIB, MIB

HOME = facts.Place("/h", "home", "directory", 1000, 0o700)
INSIDE = facts.Place("/h/i", "directory", "directory", 1000, 0o700)
FILE = facts.Place("/h/i/epoch", "file", "file", 1000, 0o600)
DEFAULTS = facts.Budget()
DISK = facts.Disk("/h", "ext4", 500 * GIB, 200 * GIB, 1_000_000, 900_000)


def one(found: Any) -> Finding:
    (finding,) = found
    return finding  # type: ignore[no-any-return]


def placed(*places: facts.Place) -> list[Finding]:
    return list(machine.check_places(facts.Places(1000, places)))


def test_a_private_home_is_fine_and_so_is_none_at_all() -> None:
    assert [f.level for f in placed(HOME, INSIDE, FILE)] == ["ok"]
    assert "the first run makes it" in one(placed(replace(HOME, kind="missing"))).text
    assert not is_trouble(placed(replace(HOME, owner=0, mode=0o1777)))  # /tmp
    assert not is_trouble(placed(HOME, replace(INSIDE, kind="missing")))


def test_a_directory_above_in_which_everybody_can_rename_is_a_warning() -> None:
    found = one(machine.check_places(facts.Places(1000, (HOME, INSIDE), open_above="/scratch")))
    assert (found.level, "/scratch can be written by everybody" in found.text) == ("warning", True)
    assert found.advice.startswith("chmod +t /scratch")


@pytest.mark.parametrize(
    ("place", "said", "advice"),
    [
        (replace(HOME, owner=7), "/h belongs to uid 7, not to you", "TRACKD_HOME"),
        (replace(HOME, mode=0o777), "/h can be written by everybody", "chmod o-w /h"),
        (replace(HOME, kind="file"), "/h is something else, not a directory", "remove it"),
        (replace(HOME, kind="missing", is_writable=False), "/h is missing and cannot be made", "TRACKD_HOME"),
        (replace(HOME, error="Permission denied"), "/h cannot be looked at: Permission denied", "readable"),
        (replace(HOME, is_writable=False), "/h cannot be written", "chmod u+rwx /h"),
        (replace(INSIDE, owner=0), "/h/i belongs to uid 0", "TRACKD_HOME"),
        (replace(INSIDE, mode=0o750), "/h/i is open to other users (mode 750)", "chmod go= /h/i"),
        (replace(INSIDE, kind="link"), "/h/i is a symbolic link, not a directory", "remove it"),
        (replace(INSIDE, is_writable=False), "/h/i cannot be written", "read-only"),
        (replace(FILE, mode=0o604), "/h/i/epoch is open to other users", "chmod go= /h/i/epoch"),
        (replace(FILE, kind="link"), "/h/i/epoch is a symbolic link, not a file", "remove it"),
    ],
)  # fmt: skip
def test_a_place_that_is_not_ours_alone_is_trouble(place: facts.Place, said: str, advice: str) -> None:
    finding = one(placed(place))
    assert finding.level == "trouble" and said in finding.text and advice in finding.advice


def disk(budget: facts.Budget = DEFAULTS, **changes: Any) -> dict[str, Finding]:
    return {finding.check: finding for finding in machine.check_disk(replace(DISK, **changes), budget)}


def test_a_large_local_disk_is_fine() -> None:
    assert {f.level for f in disk().values()} == {"ok"}


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs", "lustre"])
def test_network_file_systems_are_warned_of(kind: str) -> None:
    finding = disk(kind=kind)["file system"]
    assert finding.level == "warning" and kind in finding.text and "TRACKD_HOME" in finding.advice


def test_a_disk_that_goes_with_the_container_is_worth_a_note() -> None:
    assert disk(kind="overlay")["file system"].level == "note"


@pytest.mark.parametrize(
    ("free", "budget", "level", "said"),
    [
        (GIB - 1, facts.Budget(), "trouble", "the daemon takes nothing more: only"),
        (200 * GIB, facts.Budget(wal_quota=GIB, wal_bytes=GIB), "trouble", "reached its quota"),
        (200 * GIB, facts.Budget(wal_quota=1000, wal_bytes=901), "warning", "901 bytes of at most 1000 bytes"),
        (GIB + 500 * MIB, facts.Budget(), "warning", "less than the"),
        (5 * GIB, facts.Budget(), "note", "less than the"),
        (5 * GIB, facts.Budget(wal_quota=GIB, spool_quota=GIB), "ok", "2.0 GiB more"),
        (2 * GIB, facts.Budget(min_free=3 * GIB), "trouble", "takes nothing more"),
    ],
)
def test_space_is_measured_against_the_quotas(free: int, budget: facts.Budget, level: str, said: str) -> None:
    finding = disk(budget, free=free)["disk space"]
    assert finding.level == level and said in finding.text
    assert finding.advice or level in ("ok", "note")


@pytest.mark.parametrize(
    ("inodes", "left", "level"),
    [(0, 0, "ok"), (10**6, 10_000, "ok"), (10**6, 9_999, "warning"), (10**6, 999, "trouble")],
)
def test_inodes_run_out_too(inodes: int, left: int, level: str) -> None:
    assert disk(inodes=inodes, inodes_free=left)["inodes"].level == level


@pytest.mark.parametrize(
    ("memory", "check", "level", "said"),
    [
        (facts.Memory(True, True, "/h"), "fork guard", "ok", "MADV_WIPEONFORK"),
        (facts.Memory(False, True, "/h"), "fork guard", "warning", "go unnoticed"),
        (facts.Memory(True, True, "/h"), "mapped files", "ok", "/h"),
        (facts.Memory(True, None, "/h", "EOPNOTSUPP"), "mapped files", "note", "EOPNOTSUPP"),
        (facts.Memory(True, False, "/h", "No space left"), "mapped files", "trouble", "No space left"),
    ],
)
def test_what_the_kernel_cannot_do(memory: facts.Memory, check: str, level: str, said: str) -> None:
    finding = next(f for f in machine.check_memory(memory) if f.check == check)
    assert finding.level == level and said in finding.text


def test_files_from_the_future_mean_a_clock_that_was_set_back() -> None:
    stamps = (facts.Stamp("/a", 2_000_000_000), facts.Stamp("/b", 61_000_001), facts.Stamp("/c", 5))
    finding = one(machine.check_clock(facts.Clock(0, stamps)))
    assert finding.level == "warning" and "/a was written 2,000 s in the future" in finding.text
    assert one(machine.check_clock(facts.Clock(0, (facts.Stamp("/b", 60_000_000),)))).level == "ok"
    assert "there are more" in one(machine.check_clock(facts.Clock(0, (), is_cut_off=True))).text


@pytest.mark.parametrize(
    ("gpu", "level", "said"),
    [
        (facts.Gpu(True, True, 8, driver="550.54"), "ok", "8 NVIDIA GPUs, driver 550.54"),
        (facts.Gpu(True, True, 1, driver="550.54"), "ok", "1 NVIDIA GPU, "),
        (facts.Gpu(False, True, error="not found"), "ok", "no NVIDIA driver"),
        (facts.Gpu(False, False, error="no module"), "note", "pynvml cannot be imported"),
        (facts.Gpu(True, False, error="no module"), "warning", "though there is an NVIDIA driver"),
        (facts.Gpu(True, True, error="Driver/library version mismatch"), "warning", "version mismatch"),
    ],
)
def test_no_gpu_is_no_trouble_and_a_silent_one_is_said(gpu: facts.Gpu, level: str, said: str) -> None:
    finding = one(machine.check_gpu(gpu))
    assert finding.level == level and said in finding.text


def test_the_worst_comes_first() -> None:
    levels: Any = ("ok", "trouble", "note", "warning", "trouble")
    ordered = worst_first([Finding(str(i), level, "") for i, level in enumerate(levels)])
    assert [f.check for f in ordered] == ["1", "4", "3", "2", "0"]
