"""Each route answers what docs/http-api.md promises."""

import csv
import io
import json
import math
import struct
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import numpy as np
import pytest
from fastapi.testclient import TestClient
from pydantic import BaseModel
from support.fake_store import FakeStore
from trackd_daemon.errors import StoreFullError
from trackd_daemon.http import models

ODD = "/api/v1/runs/odd%2Fname%20%C3%BC/a%2Fb"
R1 = "/api/v1/runs/p/r1"
ODD_VALUES: dict[str, Any] = {
    "nan": math.nan, "inf": math.inf, "neg": -math.inf, "zero": -0.0, "edge": 2**53, "over": 2**53 + 1,
    "u64": 2**64 - 1, "low": -(2**63), "text": "NaN", "list": [1, math.inf], "nested": {"a": [2**60]}, "yes": True,
    "huge": 2**70,
}  # fmt: skip


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/api/v1/hub", models.HubOut),
        ("/api/v1/projects", models.ProjectsOut),
        ("/api/v1/projects/p/columns", models.ColumnsOut),
        ("/api/v1/projects/p/runs", models.RunsOut),
        (R1, models.RunOut),
        (ODD, models.RunOut),
        (f"{R1}/keys", models.KeysOut),
        (f"{R1}/history", models.RowsOut),
        (f"{R1}/writers", models.WritersOut),
        (f"{R1}/attempts", models.AttemptsOut),
    ],
)
def test_answers_have_the_shape_that_openapi_says(api: TestClient, path: str, model: type[BaseModel]) -> None:
    answer = api.get(path)
    assert answer.status_code == 200
    model.model_validate_json(answer.content)
    # The model names every field that is answered: nothing undocumented.
    assert model.model_validate_json(answer.content).model_dump().keys() >= answer.json().keys()
    same = msgspec.msgpack.decode(api.get(path, headers={"Accept": "application/msgpack"}).content)
    model.model_validate(same)


def test_names_may_hold_anything(api: TestClient) -> None:
    assert api.get(ODD).json()["run_id"] == "a/b"
    assert api.get("/api/v1/projects/odd%2Fname%20%C3%BC/runs").json()["total"] == 1
    assert api.get(f"{ODD}/keys").json()["keys"][0]["key"] == "loss"


def test_what_is_not_there_is_a_404(api: TestClient) -> None:
    for path in ("", "/keys", "/history", "/scan", "/export", "/writers", "/attempts"):
        answer = api.get(f"/api/v1/runs/p/none{path}")
        assert answer.status_code == 404 and "'none'" in answer.json()["detail"]
    assert api.delete("/api/v1/runs/p/none").status_code == 404
    assert api.patch("/api/v1/runs/p/none", json={"name": "x"}).status_code == 404
    assert api.post("/api/v1/runs/p/none/stop").status_code == 404
    assert api.delete("/api/v1/projects/none").status_code == 404
    assert api.get("/api/v2/hub").status_code == 404


def test_errors_say_what_and_where(api: TestClient, store: FakeStore) -> None:
    answer = api.get("/api/v1/projects/p/runs", params={"where": "lr <"})
    assert answer.status_code == 400 and answer.json() == {"detail": "a value is missing after '<'", "position": 4}
    store.failure = StoreFullError("no space left")
    answer = api.get("/api/v1/projects/p/runs")
    assert answer.status_code == 503 and answer.headers["retry-after"] == "1"
    assert api.get("/api/v1/projects/p/runs?limit=0").status_code == 422


def test_runs_come_in_pages(api: TestClient) -> None:
    first = api.get("/api/v1/projects/p/runs?limit=1").json()
    second = api.get("/api/v1/projects/p/runs", params={"limit": 1, "cursor": first["next_cursor"]}).json()
    assert [first["runs"][0]["run_id"], second["runs"][0]["run_id"]] == ["r1", "r2"]
    assert first["total"] == 2 and second["next_cursor"] == ""


def test_edits(api: TestClient, store: FakeStore) -> None:
    changed = api.patch(R1, json={"name": "n", "tags": ["x"], "notes": None}).json()
    assert (changed["name"], changed["tags"], changed["notes"]) == ("n", ["x"], None)
    assert api.patch(R1, json={"project": "q"}).status_code == 200
    assert ("q", "r1") in store.all_runs
    store.add_run("p", "r1")
    assert api.patch(R1, json={"project": "q"}).status_code == 409
    for bad in ({}, {"state": "finished"}, {"name": None}, {"tags": "x"}, {"name": ""}):
        assert api.patch(R1, json=bad).status_code == 422
    assert api.post(f"{R1}/stop").json() == {} and store.stopped == [("p", "r1")]
    assert api.delete(R1).json() == {} and ("p", "r1") not in store.all_runs
    assert api.patch("/api/v1/projects/p", json={"name": "q"}).status_code == 409
    assert api.patch("/api/v1/projects/p", json={"name": "new"}).json() == {}
    assert api.delete("/api/v1/projects/new").json() == {}


def test_history_keeps_extremes_in_whole_rows(api: TestClient) -> None:
    for samples in (4, 20, 500):
        found = api.get(f"{R1}/history", params={"samples": samples, "keys": "loss"}).json()["rows"]
        assert len(found) <= samples + 1
        assert max(found, key=lambda row: row["loss"]) == {
            "_step": 1_000, "_timestamp": 2_000.0, "_runtime": 1_000.0, "loss": 99.0,
        }  # fmt: skip
        assert found[-1]["_step"] == 2_999
        assert [row["_step"] for row in found] == sorted(row["_step"] for row in found)


def test_a_short_history_is_exact(api: TestClient, store: FakeStore) -> None:
    assert api.get("/api/v1/runs/p/r2/history").json()["rows"] == store.rows["p", "r2", "default"]


def test_history_of_texts_and_by_another_axis(api: TestClient, store: FakeStore) -> None:
    store.add_run("p", "t", [{"_step": i, "_timestamp": float(-i), "word": f"w{i}"} for i in range(1_000)])
    found = api.get("/api/v1/runs/p/t/history", params={"samples": 100, "keys": "word"}).json()["rows"]
    assert len(found) <= 101 and found[0]["word"] == "w0" and found[-1]["word"] == "w999"
    by_time = api.get("/api/v1/runs/p/t/history", params={"x_axis": "_timestamp", "samples": 50}).json()["rows"]
    assert by_time[0]["word"] == "w999"


def test_history_with_more_keys_than_samples(api: TestClient, store: FakeStore) -> None:
    store.add_run("p", "wide", [{"_step": i, **{f"k{j}": i * j for j in range(300)}} for i in range(400)])
    found = api.get("/api/v1/runs/p/wide/history", params={"samples": 100}).json()["rows"]
    assert 50 <= len(found) <= 101 and len(found[0]) == 301


def test_system_history_has_times(api: TestClient) -> None:
    found = api.get(f"{R1}/history", params={"stream": "system", "samples": 10}).json()["rows"]
    assert {row["cpu"] for row in found} >= {0.0, 6.0}
    assert found[0]["_timestamp"] == 1000.0 and found[0]["_runtime"] == 0.0


def test_scan_is_exact_in_both_forms(api: TestClient, store: FakeStore) -> None:
    store.add_run("p", "odd", [{"_step": 1, **ODD_VALUES}])
    (line,) = api.get("/api/v1/runs/p/odd/scan").text.splitlines()
    found = json.loads(line)
    assert (found["nan"], found["inf"], found["neg"], found["edge"]) == ("NaN", "Infinity", "-Infinity", 2**53)
    assert (found["over"], found["low"], found["nested"]) == (
        f"int:{2**53 + 1}",
        f"int:{-(2**63)}",
        {"a": [f"int:{2**60}"]},
    )
    assert math.copysign(1, found["zero"]) == -1 and found["list"] == [1, "Infinity"]
    lines = api.get(f"{R1}/scan?start=10&end=20").text.splitlines()
    assert [json.loads(line)["_step"] for line in lines] == list(range(10, 20))
    assert len(api.get(f"{R1}/scan").text.splitlines()) == 3_000
    assert api.get("/api/v1/runs/p/r2/scan?keys=none").text == ""
    assert store.open_scans == 0


def test_a_chart_is_typed_arrays(api: TestClient, store: FakeStore) -> None:
    asked = {"runs": [["p", "r1"], ["p", "r2"], ["p", "gone"]], "keys": ["loss"], "buckets": 40}
    answer = api.post("/api/v1/charts", json=asked)
    data = answer.content
    (size,) = struct.unpack_from("<I", data)
    head = json.loads(data[4 : 4 + size])
    start = -(-(4 + size) // 8) * 8
    assert not any(data[4 + size : start])
    assert head["version"] == {"p/r1": 7, "p/r2": 7}
    for series in head["series"]:
        columns = {}
        for i, name in enumerate(series["columns"]):
            at = start + series["offset"] + i * series["n"] * 8
            columns[name] = np.frombuffer(data, "<f8", series["n"], at)
        rows = store.rows["p", series["run"][1], "default"]
        assert series["total"] == len(rows) == columns["count"].sum()
        assert columns["max"].max() == 99.0 and columns["max_x"][columns["max"].argmax()] == len(rows) // 3
    assert start + sum(s["n"] for s in head["series"]) * 9 * 8 == len(data)


@pytest.mark.parametrize(
    "bad", [{"runs": [], "keys": []} | {"buckets": 0}, {"runs": [["p"]], "keys": []}, {"runs": [], "keys": [], "x": 1}]
)
def test_a_bad_chart_request_is_told(api: TestClient, bad: dict[str, Any]) -> None:
    assert api.post("/api/v1/charts", json=bad).status_code == 422


def test_a_chart_that_would_not_fit_is_refused(api: TestClient) -> None:
    many = {"runs": [["p", f"r{i}"] for i in range(1_000)], "keys": [f"k{i}" for i in range(1_000)]}
    assert api.post("/api/v1/charts", json=many).status_code == 400


def exported(api: TestClient, run: str, kind: str) -> bytes:
    answer = api.get(f"/api/v1/runs/p/{run}/export?format={kind}")
    assert answer.status_code == 200 and f"{run}.{kind}" in answer.headers["content-disposition"]
    return answer.content


def test_csv_export(api: TestClient, store: FakeStore) -> None:
    store.add_run("p", "odd", [{"_step": 0, "gap": 1.5}, {"_step": 1, **ODD_VALUES, "text": 'a,"b"\nc'}])
    first, second = csv.DictReader(io.StringIO(exported(api, "odd", "csv").decode()))
    assert first["gap"] == "1.5" and first["text"] == "" and second["gap"] == ""
    assert second["u64"] == str(2**64 - 1) and second["text"] == 'a,"b"\nc' and second["inf"] == "Infinity"
    assert float(second["nan"]) != float(second["nan"]) and second["yes"] == "true"
    assert len(exported(api, "r1", "csv").splitlines()) == 3_001


def test_jsonl_export(api: TestClient) -> None:
    assert exported(api, "r1", "jsonl") == api.get(f"{R1}/scan").content


def test_parquet_export_is_exact(api: TestClient, store: FakeStore, tmp_path: Path) -> None:
    store.add_run(
        "p",
        "odd",
        [
            {"_step": 0, "_timestamp": 0.5, "a.b": 1, 'q"q': 1, "Loss": 1.0, "loss": 2.0, "mixed": 1},
            {"_step": 1, "_timestamp": 1.5, **ODD_VALUES, "a.b": 0.5, "mixed": "x"},
        ],
    )
    file = tmp_path / "x.parquet"
    file.write_bytes(exported(api, "odd", "parquet"))
    with duckdb.connect() as database:
        table = database.execute(f"SELECT * FROM '{file}' ORDER BY _step")
        names = [d[0] for d in table.description]
        first, second = (dict(zip(names, row, strict=True)) for row in table.fetchall())
    assert (first["a.b"], second["a.b"], first['q"q'], first["Loss"], first["loss_2"]) == (1.0, 0.5, 1, 1.0, 2.0)
    assert (second["u64"], second["low"], second["over"]) == (2**64 - 1, -(2**63), 2**53 + 1)
    assert second["huge"] == f'"int:{2**70}"' and second["nan"] != second["nan"] and first["nan"] is None
    assert (second["text"], second["yes"], second["mixed"], first["mixed"]) == ("NaN", True, '"x"', "1")


def test_parquet_of_a_run_without_rows(api: TestClient, store: FakeStore, tmp_path: Path) -> None:
    store.add_run("p", "empty")
    file = tmp_path / "x.parquet"
    file.write_bytes(exported(api, "empty", "parquet"))
    with duckdb.connect() as database:
        assert database.execute(f"SELECT count(*) FROM '{file}'").fetchone() == (0,)


def test_exports_leave_no_temporary_files(
    api: TestClient, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = tmp_path_factory.mktemp("temp")
    monkeypatch.setattr("tempfile.tempdir", str(place))
    exported(api, "r1", "parquet")
    assert list(place.iterdir()) == []
