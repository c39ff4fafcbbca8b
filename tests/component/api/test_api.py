"""trackd.Api() over HTTP against the real store."""

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trackd
from support.seeding import SeedHub
from trackd_daemon.http import models
from trackd_proto.auth import http_token
from trackd_proto.local import hub_client
from trackd_proto.records import tagged_int

SPIKE = 1_234
COOKIE = b"a cookie of thirty-two bytes...."
ODD = {"nan": math.nan, "inf": -math.inf, "zero": -0.0, "u64": 2**64 - 1, "over": 2**53 + 1, "text": "NaN", "yes": True,
       "list": [1, {"a": math.inf}]}  # fmt: skip


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeedHub]:
    made = SeedHub(tmp_path_factory.mktemp("hub"))
    try:
        run = made.run(
            "digits", "long", name="calm otter", config={"lr": 0.1, "net": {"depth": 3}, "fast": True}, tags=["a"]
        )
        run.log((i, {"loss": 99.0 if i == SPIKE else 1 / (i + 1), "acc": i / 5_000}) for i in range(5_000))
        run.log([(5_000, {**ODD, "big": tagged_int(2**70)})])
        run.system({"cpu": float(i % 10)} for i in range(100))
        run.finish()
        for i in range(7):
            made.run("digits", f"r{i}", config={"lr": 10.0**-i}, created_s=1e9 + i).log([(0, {"loss": float(i)})])
        made.run("spaced name é", "x")
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def api(hub: SeedHub) -> trackd.Api:
    return trackd.Api(url=hub.url, token=http_token(COOKIE))


@pytest.fixture(scope="module")
def run(api: trackd.Api) -> Any:
    return api.run("digits/long")


def test_projects(api: trackd.Api) -> None:
    assert {p.name: p.runs for p in api.projects()} == {"digits": 8, "spaced name é": 1}
    assert api.run("spaced name é/x").project == "spaced name é"


def test_runs_come_lazily(api: trackd.Api) -> None:
    runs = api.runs("digits", per_page=3)
    assert runs[1].id == "r1" and len(runs._runs) == 3
    assert len(runs) == 8 and [run.id for run in runs] == [f"r{i}" for i in range(7)] + ["long"]
    assert [run.id for run in runs[1:3]] == ["r1", "r2"] and runs[-1].id == "long" and len(runs[:]) == 8
    with pytest.raises(IndexError):
        runs[8]
    assert [run.id for run in api.runs("digits", order="-created_at", per_page=2)][:2] == ["long", "r6"]
    assert list(api.runs("none")) == []


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ("config.lr < 1e-4", {"r5", "r6"}),
        ({"config.lr.value": {"$lt": 1e-4}}, {"r5", "r6"}),
        ({"$or": [{"config.lr": {"$gte": 1}}, {"displayName": "calm otter"}]}, {"r0", "long"}),
        ({"summary_metrics.loss": {"$gt": 2, "$lte": 4}}, {"r3", "r4"}),
        ({"state": "finished", "tags": {"$in": ["a", "b"]}}, {"long"}),
        ({"config.fast": True}, {"long"}),
        ({"config.net.depth": 3, "$nor": [{"name": {"$regex": "^r"}}]}, {"long"}),
        ({"id": {"$nin": [f"r{i}" for i in range(1, 7)]}}, {"r0", "long"}),
    ],
)
def test_filters(api: trackd.Api, filters: Any, expected: set[str]) -> None:
    found = api.runs("digits", filters)
    assert {run.id for run in found} == expected and len(found) == len(expected)


def test_a_mistake_in_a_filter_says_where(api: trackd.Api) -> None:
    with pytest.raises(ValueError, match="at character"):
        len(api.runs("digits", "config.lr <"))
    with pytest.raises(LookupError, match="no run 'none'"):
        api.run("digits/none")


def test_a_run_has_its_facts(run: Any, hub: SeedHub) -> None:
    assert (run.id, run.name, run.project, run.state, run.tags) == ("long", "calm otter", "digits", "finished", ["a"])
    assert run.config == {"lr": 0.1, "net": {"depth": 3}, "fast": True}
    assert run.summary["acc"] == 4_999 / 5_000 and run.summary["u64"] == 2**64 - 1 and run.summary["big"] == 2**70
    assert run.url == f"{hub.url}/p/digits/r/long" and run.path == ["digits", "long"]
    assert run.created_at.endswith("Z") and "digits/long" in repr(run)
    keys = run.keys()
    assert keys["loss"]["count"] == 5_000 and keys["loss"]["max"] == 99.0 and set(run.keys("system")) == {"cpu"}


def test_history_is_sampled_and_keeps_the_spike(run: Any) -> None:
    for samples in (6, 50, 500):
        rows = run.history(samples=samples, keys=["loss"], pandas=False)
        assert samples / 3 <= len(rows) <= samples + 1
        assert {"_step": SPIKE, "loss": 99.0}.items() <= max(rows, key=lambda row: row.get("loss", 0)).items()
        assert all(row["loss"] == (99.0 if row["_step"] == SPIKE else 1 / (row["_step"] + 1)) for row in rows)
    both = run.history(samples=100, keys=["loss", "acc"], pandas=False)
    assert all({"loss", "acc"} <= row.keys() for row in both), "rows are whole"


def test_history_as_a_frame(run: Any) -> None:
    frame = run.history(samples=100, keys=["loss", "_step"])
    assert frame["loss"].max() == 99.0 and list(frame["_step"]) == sorted(frame["_step"])
    assert len(run.history(keys=[])) == 0


def test_history_without_pandas_is_a_list_and_says_so(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.warns(UserWarning, match="pandas is not installed"):
        assert isinstance(run.history(samples=10), list)


def test_system_history(run: Any) -> None:
    rows = run.history(stream="system", pandas=False, samples=20)
    assert {row["cpu"] for row in rows} >= {0.0, 9.0} and all(row["_timestamp"] > 1e9 for row in rows)
    assert len(list(run.scan_history(stream="system"))) == 100


def test_scan_is_exact(run: Any) -> None:
    rows = list(run.scan_history())
    assert [row["_step"] for row in rows] == list(range(5_001))
    last = {key: value for key, value in rows[-1].items() if not key.startswith("_")}
    assert repr(last["nan"]) == "nan" and last.pop("nan") is not None
    assert last == {key: value for key, value in ODD.items() if key != "nan"} | {"big": 2**70}
    assert math.copysign(1, last["zero"]) == -1 and type(last["u64"]) is int and last["yes"] is True
    some = list(run.scan_history(["acc"], min_step=10, max_step=13))
    assert [(row["_step"], row["acc"]) for row in some] == [(i, i / 5_000) for i in (10, 11, 12)]
    assert "loss" not in some[0]


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda run: run.history(keys="loss"), TypeError, "list of texts"),
        (lambda run: run.history(stream="x"), ValueError, "'default', 'system'"),
        (lambda run: run.history(samples=0), ValueError, "samples"),
    ],
)
def test_wrong_arguments_are_named(run: Any, call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call(run)


def test_edits(api: trackd.Api, hub: SeedHub) -> None:
    hub.run("edit", "e1", tags=["x"])
    run = api.run("edit/e1")
    run.name, run.notes, run.group = "new", "text", "g"
    run.tags.append("y")
    run.update()
    again = api.run("edit/e1")
    assert (again.name, again.notes, again.group, again.tags) == ("new", "text", "g", ["x", "y"])
    run.move("elsewhere")
    assert api.run("elsewhere/e1").name == "new"
    run.delete()
    with pytest.raises(hub_client.NotFoundError):
        run.load()


def test_the_real_store_answers_in_the_documented_shapes(api: trackd.Api) -> None:
    client = api._client
    for path, model in [
        ("/hub", models.HubOut),
        ("/projects", models.ProjectsOut),
        ("/projects/digits/columns", models.ColumnsOut),
        ("/projects/digits/runs", models.RunsOut),
        ("/runs/digits/long", models.RunOut),
        ("/runs/digits/long/keys", models.KeysOut),
        ("/runs/digits/long/keys?stream=system", models.KeysOut),
        ("/runs/digits/long/history", models.RowsOut),
        ("/runs/digits/long/writers", models.WritersOut),
        ("/runs/digits/long/attempts", models.AttemptsOut),
    ]:
        model.model_validate(client.get(path))


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_exports_hold_every_row(api: trackd.Api, kind: str, tmp_path: Path) -> None:
    import duckdb

    file = tmp_path / f"x.{kind}"
    with api._client.open("/runs/digits/long/export", {"format": kind}) as response:
        file.write_bytes(b"".join(response.stream(1 << 16)))
    reader = {"csv": "read_csv", "jsonl": "read_json", "parquet": "read_parquet"}[kind]
    with duckdb.connect() as database:
        found = database.execute(f"SELECT count(*), max(loss), sum(_step) FROM {reader}('{file}')").fetchone()
    assert found == (5_001, 99.0, sum(range(5_001)))


def test_url_and_token_belong_together() -> None:
    with pytest.raises(ValueError, match="token"):
        trackd.Api(url="http://127.0.0.1:1")
