"""The points of runs: sampled, exact, exported, charted."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Annotated, Any, Final, Literal
from urllib.parse import quote

from fastapi import APIRouter, HTTPException, Query, Request, Response
from fastapi.responses import FileResponse, StreamingResponse

from trackd_daemon.http import charts, encoding, export, models, sampling
from trackd_daemon.http.hub import Hub, answer
from trackd_daemon.http.routes.names import RUN
from trackd_daemon.ports import ChartQuery, HubStore

MAX_POINTS: Final = 4_000_000
"""runs x keys x buckets of one chart query: its answer has nine doubles for each (bounded memory)."""

MAX_VALUES: Final = 1_000_000
"""rows x keys of one sampled history (bounded memory): of more keys there are fewer rows."""

_OVER: Final = 3
"""Rows with extremes may be more than was asked for: so many times MAX_VALUES are held at most."""

_FINER: Final = 4
"""Charts asked for at most, to find the grid of a sampled history."""

Keys = Annotated[list[str] | None, Query()]
Stream = Literal["default", "system"]
Attempt = Annotated[int | None, Query(ge=1)]
"""Number of an attempt, from 1 in order of their start; not given: the run's one curve."""

_FILE_TYPES: Final = {
    "csv": "text/csv; charset=utf-8",
    "jsonl": encoding.NDJSON,
    "parquet": "application/vnd.apache.parquet",
}


def routes(hub: Hub) -> APIRouter:
    """history, scan and export of a run; charts over several."""
    router = APIRouter(tags=["history"])

    @router.get(RUN + "/history", response_model=models.RowsOut)
    async def get_history(
        request: Request,
        *,
        project: str,
        run: str,
        keys: Keys = None,
        samples: Annotated[int, Query(ge=1, le=sampling.MAX_STEPS)] = 500,
        x_axis: str = "_step",
        stream: Stream = "default",
        attempt: Attempt = None,
    ) -> Response:
        """About `samples` whole rows, the minimum and maximum of each key in each bucket among them. Of more than a
        million values in all (many keys, long texts) there are fewer rows."""
        found = await hub.need_run(project, run)
        rows = await hub.call(
            _history, hub.store, found, keys=keys, samples=samples, x_axis=x_axis, stream=stream, attempt=attempt
        )
        return answer(request, {"rows": rows})

    @router.get(RUN + "/scan", response_class=StreamingResponse, responses=_rows_as(encoding.NDJSON, encoding.MSGPACK))
    async def scan(
        request: Request,
        *,
        project: str,
        run: str,
        keys: Keys = None,
        start: int | None = None,
        end: int | None = None,
        stream: Stream = "default",
        attempt: Attempt = None,
    ) -> Response:
        """Every row of steps [start, end), exact, in step order; JSON lines, or msgpack (`docs/http-api.md`)."""
        await hub.need(project, run)
        is_msgpack = encoding.wants_msgpack(request.headers.get("accept", ""))
        encode = encoding.to_msgpack_rows if is_msgpack else encoding.to_json_lines
        rows = hub.store.scan(project, run, keys=keys, start=start, end=end, stream=stream, attempt=attempt)
        kind = encoding.MSGPACK if is_msgpack else encoding.NDJSON
        return await _streamed(hub, (encode(chunk) for chunk in rows), kind)

    @router.get(RUN + "/export", response_class=StreamingResponse, responses=_rows_as(*_FILE_TYPES.values()))
    async def export_run(
        project: str, run: str, format: Literal["csv", "jsonl", "parquet"] = "csv", stream: Stream = "default"
    ) -> Response:
        """The whole history of a run as a file."""
        await hub.need(project, run)
        name = f"attachment; filename*=UTF-8''{quote(f'{project}-{run}.{format}', safe='')}"
        headers = {"Content-Disposition": name}
        if format == "parquet":
            path = await hub.call(export.parquet_file, hub.store, project, run, stream)
            return FileResponse(
                path, media_type=_FILE_TYPES[format], headers=headers, background=export.removal(path.parent)
            )
        lines = export.csv_lines if format == "csv" else export.json_lines
        return await _streamed(hub, lines(hub.store, project, run, stream), _FILE_TYPES[format], headers)

    @router.post("/api/v1/charts", response_class=Response, responses={200: {"content": {charts.MEDIA_TYPE: {}}}})
    async def chart(query: models.ChartRequest) -> Response:
        """Series on one shared grid, in the binary form of `docs/http-api.md`."""
        if len(query.runs) * len(query.keys) * query.buckets > MAX_POINTS:
            raise HTTPException(400, f"runs x keys x buckets is over {MAX_POINTS}: ask for fewer of one of them")
        return Response(await hub.call(_chart, hub.store, query), media_type=charts.MEDIA_TYPE)

    return router


def _chart(store: HubStore, query: models.ChartRequest) -> bytes:
    runs = list(dict.fromkeys(query.runs))
    # Versions first: the answer is then at least as new as they say, and the next change is not missed.
    found = store.versions(runs)
    versions = {f"{project}/{run}": version for (project, run), version in found.items()}
    asked = ChartQuery(
        runs=[name for name in runs if name in found],
        keys=list(dict.fromkeys(query.keys)),
        buckets=query.buckets,
        x_axis=query.x_axis,
        start=query.start,
        end=query.end,
        stream=query.stream,
        attempt=query.attempt,
    )
    return charts.encode(store.chart(asked), versions)


def _history(
    store: HubStore,
    run: dict[str, Any],
    *,
    keys: list[str] | None,
    samples: int,
    x_axis: str,
    stream: str,
    attempt: int | None,
) -> list[dict[str, Any]]:
    project, run_id = run["project"], run["run_id"]
    infos = [k for k in store.keys(project, run_id, stream) if keys is None or k["key"] in keys]
    numbers = [k["key"] for k in infos if k["type"] == "number"]
    samples = min(samples, max(1, MAX_VALUES // max(len(infos), 1)))
    if stream == "system":
        return _system_history(store, run, numbers, samples, attempt)
    if keys is not None and x_axis not in {"_step", "_timestamp", "_runtime", *keys}:
        keys = [*keys, x_axis]
    steps, stride, longest = None, 1, max((k["count"] for k in infos), default=0)
    if _most_rows(run, longest) > samples:
        if numbers:
            steps = _sampled_steps(store, ChartQuery([(project, run_id)], numbers, attempt=attempt), samples)
        else:  # no minimum, no maximum: rows at even distances
            stride = -(-longest // samples)
    scan = store.scan(project, run_id, keys=keys, start=None, end=None, stream=stream, steps=steps, attempt=attempt)
    most = max(2 * samples, len(steps or ()))
    rows = sampling.every((row for chunk in scan for row in chunk), max(stride, 1), most, _OVER * MAX_VALUES)
    return sampling.in_order_of(rows, x_axis)


def _most_rows(run: dict[str, Any], longest: int) -> int:
    """How many rows the run's curve has at most, about. `longest`: points of the longest series."""
    # A fork's own rows alone are counted in the run. With its keys all of its parent's points are, also those behind
    # the fork: but a curve has one row at a step.
    rows: int = run["rows"]
    return max(rows, min(longest, (run["last_step"] or 0) + 1))


def _sampled_steps(store: HubStore, query: ChartQuery, samples: int) -> list[int]:
    """Steps of the rows that stand for the query's only run."""
    ((project, run_id),) = query.runs
    if sampling.keeps_extremes(samples, len(query.keys)):
        return _extreme_steps(store, query, samples)
    # More keys than rows: no choice of rows has every extreme. Evenly spaced rows of the longest series instead.
    counts = {k["key"]: k["count"] for k in store.keys(project, run_id, "default")}
    longest = max(query.keys, key=lambda key: counts.get(key, 0))
    query = replace(query, keys=[longest], buckets=samples)
    return sampling.thin([int(x) for s in store.chart(query) for x in s.x], samples)


def _extreme_steps(store: HubStore, query: ChartQuery, samples: int) -> list[int]:
    """As fine a grid as `samples` rows allow. The store rounds widths to powers of two, and extremes of several keys
    may share rows: so the first guess can be too coarse."""
    buckets = sampling.bucket_count(samples, len(query.keys))
    chosen: list[int] = []
    for _ in range(_FINER):
        finer = sampling.chosen_steps(store.chart(replace(query, buckets=buckets)))
        if chosen and (len(finer) > samples or len(finer) == len(chosen)):
            break
        chosen, buckets = finer, 2 * buckets
    return sampling.thin(chosen, sampling.MAX_STEPS)


def _system_history(
    store: HubStore, run: dict[str, Any], keys: list[str], samples: int, attempt: int | None
) -> list[dict[str, Any]]:
    name, buckets = (run["project"], run["run_id"]), sampling.bucket_count(samples, 1)
    query = ChartQuery([name], keys, buckets, x_axis="_timestamp", stream="system", attempt=attempt)
    return sampling.merged_points(store.chart(query), run["created_us"] / 1e6)


async def _streamed(
    hub: Hub, parts: Iterator[bytes], media_type: str, headers: dict[str, str] | None = None
) -> Response:
    """The parts as they come. The first is made before the status line is sent, so that an early error has one."""
    stream = hub.stream(parts)
    first = await anext(stream, b"")

    async def body() -> AsyncIterator[bytes]:
        try:
            yield first
            async for part in stream:
                yield part
        finally:
            await stream.aclose()

    return StreamingResponse(body(), media_type=media_type, headers=headers)


def _rows_as(*media_types: str) -> dict[int | str, dict[str, Any]]:
    return {200: {"description": "rows", "content": {kind: {} for kind in media_types}}}
