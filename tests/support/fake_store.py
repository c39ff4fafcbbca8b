"""A hub's store in memory: the whole of ports.HubStore over plain lists."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from trackd_daemon.errors import ConflictError, QueryError
from trackd_daemon.model import Batch, Outcome, RunChange
from trackd_daemon.ports import ChartQuery, Json, SampledSeries

Rows = list[dict[str, Any]]

COOKIE = bytes(range(32))
BASE = "http://127.0.0.1:7777"


def sample_rows(count: int) -> list[dict[str, Any]]:
    """A smooth series with one spike, and its odd values at the end."""
    made: list[dict[str, Any]] = [
        {"_step": i, "_timestamp": 1000.0 + i, "_runtime": float(i), "loss": 1.0 / (i + 1)} for i in range(count)
    ]
    made[count // 3]["loss"] = 99.0
    return made


class FakeStore:
    def __init__(self) -> None:
        self.all_runs: dict[tuple[str, str], Json] = {}
        self.rows: dict[tuple[str, str, str], Rows] = {}
        self.listeners: list[Callable[[Sequence[RunChange]], None]] = []
        self.open_scans = 0
        self.stopped: list[tuple[str, str]] = []
        self.failure: Exception | None = None

    # ------------------------------------------------------------------ for tests

    def add_run(self, project: str, run_id: str, rows: Rows = (), system: Rows = (), **fields: Any) -> None:  # type: ignore[assignment]
        run: Json = {
            "project": project, "run_id": run_id, "name": f"name-{run_id}", "entity": None, "state": "running",
            "exit_code": None, "cause": None, "traceback": None,
            "created_us": 1_000_000_000, "updated_us": 1_000_000_001,
            "ended_us": None,
            "duration_s": 1.5,
            "notes": None, "tags": ["a"], "group": None, "job_type": None, "user": "u", "host": "h",
            "attempts": 1, "last_step": None, "rows": len(rows), "config": {"lr": 0.1, "big": 2**60},
            "summary": {"loss": float("nan")}, "meta": {}, "lost_records": 0, "version": 7,
        }  # fmt: skip
        self.all_runs[project, run_id] = {**run, **fields}
        self.rows[project, run_id, "default"] = list(rows)
        self.rows[project, run_id, "system"] = list(system)

    def tell(self, *changes: RunChange) -> None:
        for listener in tuple(self.listeners):
            listener(changes)

    # ------------------------------------------------------------------ IngestPort

    def resume(self, writer_ids: Sequence[bytes]) -> dict[bytes, int]:
        return dict.fromkeys(writer_ids, 1)

    def ingest(self, batches: Sequence[Batch]) -> list[Outcome]:
        raise NotImplementedError

    def touch(self, writer_ids: Sequence[bytes], now_us: int) -> None:
        pass

    # ------------------------------------------------------------------ ReadPort

    def store_id(self) -> str:
        return "fake-store"

    def projects(self) -> list[Json]:
        names = dict.fromkeys(p for p, _ in self.all_runs)
        return [
            {"name": n, "runs": sum(p == n for p, _ in self.all_runs), "live": 0, "created_us": 1, "updated_us": 2}
            for n in names
        ]

    def runs(
        self, project: str, *, where: str = "", sort: str = "-created", limit: int = 100, cursor: str = ""
    ) -> Json:
        if self.failure is not None:
            raise self.failure
        if where == "lr <":
            raise QueryError("a value is missing after '<'", 4)
        found = [r for (p, _), r in self.all_runs.items() if p == project and where in {"", r["run_id"]}]
        start = int(cursor or 0)
        more = str(start + limit) if start + limit < len(found) else ""
        return {"runs": found[start : start + limit], "next_cursor": more, "total": len(found)}

    def run(self, project: str, run_id: str) -> Json | None:
        return self.all_runs.get((project, run_id))

    def versions(self, runs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], int]:
        return {name: self.all_runs[name]["version"] for name in runs if name in self.all_runs}

    def columns(self, project: str) -> list[Json]:
        return [{"path": "config.lr", "kind": "config", "type": "number", "runs": 1}]

    def keys(self, project: str, run_id: str, stream: str = "default") -> list[Json]:
        found: dict[str, Json] = {}
        for row in self.rows.get((project, run_id, stream), []):
            for key, value in row.items():
                if key.startswith("_"):
                    continue
                kind = "number" if isinstance(value, (int, float)) and not isinstance(value, bool) else "other"
                info = found.setdefault(key, {"key": key, "type": kind, "count": 0, "min": None, "max": None})
                info |= {"count": info["count"] + 1, "last": value, "last_step": row.get("_step")}
        return list(found.values())

    def chart(self, query: ChartQuery) -> list[SampledSeries]:
        return [self._sampled(run, key, query) for run in query.runs for key in query.keys]

    def _sampled(self, run: tuple[str, str], key: str, query: ChartQuery) -> SampledSeries:
        rows = [r for r in self.rows[(*run, query.stream)] if isinstance(r.get(key), (int, float))]
        xs = np.array([r[query.x_axis] for r in rows], dtype=float)
        ys = np.array([r[key] for r in rows], dtype=float)
        groups = [g for g in np.array_split(np.arange(len(xs)), query.buckets) if len(g)]
        lows = np.array([g[np.argmin(ys[g])] for g in groups], dtype=int)
        highs = np.array([g[np.argmax(ys[g])] for g in groups], dtype=int)
        lasts = np.array([g[-1] for g in groups], dtype=int)
        return SampledSeries(
            run=run, key=key, x=xs[lasts], last=ys[lasts], min=ys[lows], max=ys[highs],
            mean=np.array([ys[g].mean() for g in groups]), min_x=xs[lows], max_x=xs[highs],
            count=np.array([len(g) for g in groups], dtype=np.int64), flags=np.zeros(len(groups), np.uint8),
            total=len(xs),
        )  # fmt: skip

    def scan(
        self,
        project: str,
        run_id: str,
        *,
        keys: Sequence[str] | None,
        start: int | None,
        end: int | None,
        stream: str,
        steps: Sequence[int] | None = None,
        attempt: int | None = None,
    ) -> Iterator[list[Json]]:
        self.open_scans += 1
        try:
            kept = []
            for row in self.rows[project, run_id, stream]:
                step = row.get("_step", 0)
                if (start is not None and step < start) or (end is not None and step >= end):
                    continue
                if steps is not None and step not in steps:
                    continue
                chosen = {k: v for k, v in row.items() if k.startswith("_") or keys is None or k in keys}
                if any(not k.startswith("_") for k in chosen):
                    kept.append(chosen)
                if len(kept) == 1_000:
                    yield kept
                    kept = []
            if kept:
                yield kept
        finally:
            self.open_scans -= 1

    def attempts(self, project: str, run_id: str) -> list[Json]:
        first = {
            "number": 1, "attempt": "a" * 32, "state": "killed", "exit_code": 137, "cause": "SIGKILL",
            "started_us": 1, "updated_us": 5, "ended_us": 6, "host": "h", "pid": 7, "rows": 9, "first_step": 0,
            "last_step": 8, "superseded_from": 5, "from_run": None, "from_step": None, "from_known": None,
        }  # fmt: skip
        return [
            first,
            first | {"number": 2, "superseded_from": None, "from_run": "parent", "from_step": 4, "from_known": True},
        ]

    def writers(self, project: str, run_id: str) -> list[Json]:
        loss = {"first_seq": 3, "count": 2, "reason": "full"}
        return [
            {"writer_id": "00" * 16, "role": "main", "pid": 1, "host": "h", "next_seq": 9, "records": 8, "crc32": 5,
             "losses": [loss]}
        ]  # fmt: skip

    def stats(self) -> Json:
        return {}

    # ------------------------------------------------------------------ EditPort

    def edit_run(self, project: str, run_id: str, changes: Mapping[str, Any]) -> bool:
        run = self.all_runs.get((project, run_id))
        if run is None:
            return False
        target = changes.get("project", project)
        if target != project and (target, run_id) in self.all_runs:
            raise ConflictError(f"project {target!r} has a run {run_id!r} already")
        del self.all_runs[project, run_id]
        self.all_runs[target, run_id] = {**run, **changes}
        return True

    def delete_run(self, project: str, run_id: str) -> bool:
        return self.all_runs.pop((project, run_id), None) is not None

    def rename_project(self, project: str, name: str) -> bool:
        if any(p == name for p, _ in self.all_runs):
            raise ConflictError(f"there is a project {name!r} already")
        mine = [key for key in self.all_runs if key[0] == project]
        for _, run_id in mine:
            self.all_runs[name, run_id] = {**self.all_runs.pop((project, run_id)), "project": name}
        return bool(mine)

    def delete_project(self, project: str) -> bool:
        mine = [key for key in self.all_runs if key[0] == project]
        for key in mine:
            del self.all_runs[key]
        return bool(mine)

    def request_stop(self, project: str, run_id: str) -> bool:
        self.stopped.append((project, run_id))
        return (project, run_id) in self.all_runs

    # ------------------------------------------------------------------ ChangePort

    def subscribe(self, listener: Callable[[Sequence[RunChange]], None]) -> Callable[[], None]:
        self.listeners.append(listener)
        return lambda: self.listeners.remove(listener)

    def close(self) -> None:
        pass
