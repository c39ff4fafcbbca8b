"""trackd verify: what counts as agreement, and where the logged side is found."""

import json
from pathlib import Path
from typing import Any

import pytest
from trackd_daemon.cli import verify
from trackd_daemon.cli.verify import Logged
from trackd_proto.layout import Instance

HERE = Instance(Path("/nonexistent"), "host")


def stored(writer_id: str = "aa", records: int = 10, crc32: int = 7, losses: Any = (), **fields: Any) -> dict[str, Any]:
    lost = sum(loss["count"] for loss in losses)
    return {"writer_id": writer_id, "role": "main", "next_seq": records + lost + 1, "records": records, "crc32": crc32,
            "losses": list(losses), **fields}  # fmt: skip


def loss(first_seq: int, count: int, reason: str) -> dict[str, Any]:
    return {"first_seq": first_seq, "count": count, "reason": reason}


def problem(logged: dict[str, Logged], *writers: dict[str, Any]) -> str:
    (verdict,) = verify.compare(logged, writers)
    return verdict.problem


def test_agreement() -> None:
    verdicts = verify.compare({"aa": Logged(10, 7)}, [stored()])
    assert verify.is_good(verdicts) and verdicts[0].problem == ""


@pytest.mark.parametrize(
    ("logged", "hub", "said"),
    [
        (Logged(12, 7), stored(), "records 11 to 12 are not in the hub"),
        (Logged(9, 7), stored(), "records 10 to 10, which were not noted"),
        (Logged(10, 8), stored(), "logged 00000008, stored 00000007"),
        (Logged(12, 7), stored(losses=[loss(3, 2, "full")]), r"records 3 to 4 are declared lost \(full\)"),
        (Logged(11, 7), stored(losses=[loss(3, 1, "damaged")]), "record 3 is declared lost"),
        (Logged(10, 7), stored(next_seq=12), "counts 10 records and 0 lost up to record 11"),
    ],
)  # fmt: skip
def test_every_difference_has_words(logged: Logged, hub: dict[str, Any], said: str) -> None:
    import re

    assert re.search(said, problem({"aa": logged}, hub))
    assert not verify.is_good(verify.compare({"aa": logged}, [hub]))


def test_a_writer_that_never_arrived_is_a_gap() -> None:
    assert problem({"aa": Logged(3, 1)}) == "the hub has none of its 3 records"


def test_a_writer_that_still_writes_is_compared_by_count() -> None:
    assert problem({"aa": Logged(10, None)}, stored()) == ""
    assert problem({"aa": Logged(9, None)}, stored()) == ""  # it went on while we looked
    assert "records 11 to 20" in problem({"aa": Logged(20, None)}, stored())


def test_nothing_to_compare_is_not_agreement() -> None:
    assert not verify.is_good(verify.compare({}, [stored()]))
    assert not verify.is_good([])
    # Writers of others (a sampler) need no note, as long as one was compared.
    assert verify.is_good(verify.compare({"aa": Logged(10, 7)}, [stored(), stored("bb", role="sampler")]))


def test_run_directories_are_found_by_id(tmp_path: Path) -> None:
    wanted = tmp_path / "trackd-runs" / "run-20260101_000000-abc"
    for path in (wanted, tmp_path / "trackd-runs" / "run-20260101_000000-xabc", tmp_path / "other-abc"):
        path.mkdir(parents=True)
    (wanted / "logged.json").write_text(json.dumps({"writers": {"aa": {"last_seq": 3, "crc32": 9, "role": "main"}}}))
    for root in (tmp_path, tmp_path / "trackd-runs", wanted):
        assert verify.run_directories("abc", [root]) == [wanted]
    logged, used = verify.logged_here("abc", HERE, [wanted, wanted])
    assert logged == {"aa": Logged(3, 9, "main")} and used == [wanted]
    assert verify.run_directories("abc", [tmp_path / "none"]) == []


@pytest.mark.parametrize("content", ["", "{}", '{"writers": {"aa": {}}}', '{"writers": []}', "[1]"])
def test_a_damaged_note_is_an_error_not_agreement(tmp_path: Path, content: str) -> None:
    (tmp_path / "logged.json").write_text(content)
    with pytest.raises(ValueError, match=r"logged\.json cannot be read"):
        verify.logged_here("abc", HERE, [tmp_path])
