"""trackd verify: what counts as agreement, and where the logged side is found."""

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from trackd_daemon.cli import verify
from trackd_daemon.cli.root import app
from trackd_daemon.cli.verify import Logged
from trackd_proto.layout import Instance
from trackd_proto.local import places
from trackd_proto.local.hub_client import HubAuthError, HubClient, NoHubError, NotFoundError
from typer.testing import CliRunner

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


# ---------------------------------------------------------------------------------------------- the command


@pytest.fixture
def hub_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A hub that answers what a test gives it (an exception is raised), and a run directory with 10 records noted."""
    monkeypatch.setenv("TRACKD_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    note = {"writers": {"aa": {"last_seq": 10, "crc32": 7, "role": "main"}}}
    (tmp_path / "run" / "logged.json").write_text(json.dumps(note))

    def answer(what: Any, attempts: Sequence[dict[str, Any]] = ()) -> None:
        def get(path: str) -> Any:
            if isinstance(what, Exception):
                raise what
            if path == "/runs/p/r/attempts":
                return {"attempts": attempts}
            assert path == "/runs/p/r/writers"
            return {"writers": what}

        client = SimpleNamespace(get=get)
        monkeypatch.setattr(HubClient, "of_settings", classmethod(lambda cls, settings: client))

    return answer


def run_verify(*words: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["verify", "p/r", *words], env={"COLUMNS": "200"})
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


def test_the_command_succeeds_when_all_agrees(hub_says: Any) -> None:
    hub_says([stored()])
    code, out, err = run_verify("--dir", "run")
    assert (code, "ok" in out, "error" in err) == (0, True, False)


def test_a_fork_without_its_parent_fails_the_command(hub_says: Any) -> None:
    mine = {"number": 1, "from_run": None, "from_step": None, "from_known": None}
    fork = {"number": 2, "from_run": "q", "from_step": 100, "from_known": True}
    hub_says([stored()], [mine, fork])
    assert run_verify("--dir", "run")[0] == 0
    hub_says([stored()], [mine, fork | {"from_known": False}])
    code, out, err = run_verify("--dir", "run")
    assert code == 1 and "attempt 2 begins with the rows of q up to step 100" in out and "trackd flush" in out
    assert "what it inherits" in err
    assert json.loads(run_verify("--dir", "run", "--json")[1])["ok"] is False


@pytest.mark.parametrize(
    ("hub", "said"),
    [
        ([], "the hub has none of its 10 records"),
        ([stored(records=8)], "records 9 to 10 are not in the hub"),
        ([stored(crc32=8)], "the rolling hash differs"),
        ([stored(records=12)], "records 11 to 12, which were not noted"),
        ([stored(records=8, losses=[loss(9, 2, "full")])], "records 9 to 10 are declared lost (full)"),
        ([stored(next_seq=12)], "the hub counts 10 records and 0 lost up to record 11"),
        # A writer of another machine, not compared, that the hub itself knows to be incomplete.
        ([stored(), stored("bb", losses=[loss(3, 1, "damaged")])], "record 3 is declared lost (damaged)"),
    ],
)
def test_every_difference_fails_the_command(hub_says: Any, hub: Any, said: str) -> None:
    hub_says(hub)
    code, out, err = run_verify("--dir", "run")
    # The table breaks lines where the terminal ends.
    assert code == 1 and said in " ".join(out.split()) and "writers differ" in err
    code, out, err = run_verify("--dir", "run", "--json")
    answer = json.loads(out)
    assert code == 1 and answer["ok"] is False and any(said in w["problem"] for w in answer["writers"])


@pytest.mark.parametrize(
    "error",
    [
        NoHubError("the hub at http://127.0.0.1:1 does not answer: run `trackd open`"),
        NotFoundError("no run 'r' in project 'p'"),
        HubAuthError("the hub does not accept the credential"),
    ],
)
def test_a_hub_that_does_not_answer_fails_the_command(hub_says: Any, error: Exception) -> None:
    hub_says(error)
    code, out, err = run_verify("--dir", "run")
    assert (code, out, err) == (1, "", f"error: {error}\n")


def test_without_a_readable_note_the_command_fails(hub_says: Any, tmp_path: Path) -> None:
    hub_says([stored()])
    code, out, err = run_verify()
    assert code == 1 and "nothing here says what was logged" in err and "--dir RUN_DIR" in err
    code, out, err = run_verify("--json")
    assert code == 1 and json.loads(out)["ok"] is False
    code, _, err = run_verify("--dir", str(tmp_path / "none"))
    assert code == 1 and "nothing here says" in err
    (tmp_path / "run" / "logged.json").write_text('{"writers": {"aa"')
    code, out, err = run_verify("--dir", "run")
    assert code == 1 and "logged.json cannot be read" in err
    (tmp_path / "run" / "logged.json").unlink()
    (tmp_path / "run" / "logged.json").mkdir()
    code, out, err = run_verify("--dir", "run")
    assert code == 1 and "logged.json cannot be read" in err and "Is a directory" in err


@pytest.mark.parametrize("head", [b"", b"short", bytes(8192)])
def test_a_spool_that_cannot_be_read_is_no_proof(hub_says: Any, head: bytes) -> None:
    spool = places.instance().spool
    (spool / "session").mkdir(parents=True)
    (spool / "session" / "ff.head").write_bytes(head)
    hub_says([stored()])
    assert run_verify("--dir", "run")[0] == 0, "of a writer that nobody counts to this run"
    (spool / "session" / "aa.head").write_bytes(head)
    code, out, _ = run_verify("--dir", "run", "--json")
    assert code == 1 and "aa.head cannot be read: how much was logged is not known" in out
