"""No answer depends on the order of arrival, on how batches are cut or grouped, or on when parts are written."""

import random
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.store_history import BORN_US, cut, interleave, two_attempts
from trackd_daemon.model import Batch
from trackd_daemon.ports import ChartQuery
from trackd_daemon.store import EmbeddedStore

NOW_US = BORN_US + 100_000_000
ORDERS = 200


def answers(store: EmbeddedStore) -> dict[str, Any]:
    """Everything that can be asked, in a form that tells -0.0 from 0.0 and 1 from 1.0 from True."""
    run = [("p", "r")]
    charts = {}
    for axis, stream in (
        ("_step", "default"),
        ("_relative", "default"),
        ("_timestamp", "system"),
        ("epoch", "default"),
    ):
        keys = ["loss", "mixed", "epoch", "rare/1", "cpu", "none"]
        for series in store.chart(ChartQuery(run, keys, 20, axis, stream=stream)):
            columns = [getattr(series, f.name) for f in fields(series)]
            charts[axis, stream, series.key] = [c.tobytes() if isinstance(c, np.ndarray) else c for c in columns]
    filtered = [
        store.runs("p", where=where, sort=sort)
        for where, sort in (("", "-created"), ("summary.loss > 0.5", "summary.mixed"), ("config.a != 3", "config.a"))
    ]
    return {
        "run": repr(store.run("p", "r")),
        "runs": repr(filtered),
        "projects": repr(store.projects()),
        "columns": repr(store.columns("p")),
        "keys": repr(store.keys("p", "r")),
        "system keys": repr(store.keys("p", "r", "system")),
        "chart": repr(charts),
        "scan": [
            {k: repr(v) for k, v in row.items()}
            for stream in ("default", "system")
            for rows in store.scan("p", "r", stream=stream)
            for row in rows
        ],
        "some": repr([sorted(r.items()) for rs in store.scan("p", "r", keys=["loss"], start=3, end=30) for r in rs]),
        "one attempt": repr([sorted(r.items()) for rs in store.scan("p", "r", attempt=1) for r in rs]),
        "writers": repr(store.writers("p", "r")),
    }


def feed(store: EmbeddedStore, batches: list[Batch], rng: random.Random) -> None:
    """Ingest in groups of random size, with repeats, and compact at random moments."""
    at = 0
    while at < len(batches):
        size = rng.choice((1, 3, 1000))
        group = batches[at : at + size]
        store.ingest(group)
        if rng.random() < 0.2:
            store.ingest(group)
        if rng.random() < 0.05:
            store.compact()
        at += size


@pytest.mark.timeout(600)
def test_two_hundred_interleavings_give_the_same_answers(tmp_path: Path) -> None:
    expected: dict[str, Any] | None = None
    for number in range(ORDERS):
        rng = random.Random(number)
        scripts = two_attempts(random.Random(1000))
        store = EmbeddedStore.open(tmp_path / str(number), clock=lambda: NOW_US)
        try:
            feed(store, interleave([cut(s, rng) for s in scripts], rng), rng)
            found = answers(store)
        finally:
            store.close()
        if expected is None:
            expected = found
            assert len(found["scan"]) > 50
            assert "finished" in found["run"]
        for question, answer in expected.items():
            assert found[question] == answer, f"order {number} answers {question!r} differently"
