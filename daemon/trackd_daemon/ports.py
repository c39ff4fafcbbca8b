"""Seams between the daemon's parts (layer 0): what the edges may ask of a store, whoever implements it.

Every method blocks on disk or database and is called from worker threads, never from the event loop.
"Rows" and answers are plain dicts of JSON-able values (floats may be NaN or infinite; the edge encodes them).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trackd_daemon.model import Batch, Outcome, RunChange

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class SampledSeries:
    """One series over a grid of buckets; all arrays have the length of `x`; empty buckets are left out."""

    run: tuple[str, str]
    """(project, run_id)"""
    key: str
    x: NDArray[np.float64]
    """x of the bucket's last point (step, seconds since the run's start, epoch seconds, or another metric)."""
    last: NDArray[np.float64]
    min: NDArray[np.float64]
    max: NDArray[np.float64]
    mean: NDArray[np.float64]
    min_x: NDArray[np.float64]
    """x at which the minimum (maximum) stands."""
    max_x: NDArray[np.float64]
    count: NDArray[np.int64]
    """Points in the bucket, NaN and infinities included."""
    flags: NDArray[np.uint8]
    """1: NaN in the bucket, 2: +Inf, 4: -Inf. min, max and mean are over the finite points (NaN if none)."""
    total: int
    """Points of the whole series in the range, before sampling."""


@dataclass(frozen=True, slots=True)
class ChartQuery:
    """Several series on one shared grid."""

    runs: Sequence[tuple[str, str]]
    keys: Sequence[str]
    buckets: int = 500
    x_axis: str = "_step"
    """"_step", "_relative" (s since the run's start), "_timestamp" (epoch s), or the name of a metric."""
    start: float | None = None
    """Inclusive range of x; None = open."""
    end: float | None = None
    stream: str = "default"
    """"default" (history) or "system"."""
    attempt: int | None = None
    """Only the points of this attempt (1 is the first), those included that a later one supersedes."""


class IngestPort(Protocol):
    """What feeds a hub's stores. Called from one thread at a time."""

    def resume(self, writer_ids: Sequence[bytes]) -> dict[bytes, int]:
        """The next seq expected of each writer: 1 for an unknown one; the minimum over the stores."""

    def ingest(self, batches: Sequence[Batch]) -> list[Outcome]:
        """Take these batches (of any writers, in order per writer) in one group commit.

        Duplicates are skipped, a batch beyond a writer's next seq is reported as a gap, a record that cannot be decoded
        is stored raw. Returns one outcome per writer. Raises StoreFullError (nothing of the failed writers taken)
        or StoreError; after either the caller may simply try again.
        """

    def touch(self, writer_ids: Sequence[bytes], now_us: int) -> None:
        """These writers' processes are alive (heartbeat). Cheap; may be kept in memory and written rarely."""

    def stops(self, writer_ids: Sequence[bytes]) -> set[bytes]:
        """Those of the writers whose run was asked to stop (EditPort.request_stop)."""

    def links(self, writer_ids: Sequence[bytes]) -> dict[bytes, tuple[str, str]]:
        """(project, run_id) of the writers' runs as they are called now; unknown and deleted ones are left out."""


class ReadPort(Protocol):
    """What the HTTP edge reads. Safe to call from several threads."""

    def store_id(self) -> str:
        """Identity of the store, made with it."""

    def projects(self) -> list[Json]:
        """Newest activity first; see docs/http-api.md."""

    def runs(
        self, project: str, *, where: str = "", sort: str = "-created", limit: int = 100, cursor: str = ""
    ) -> Json:
        """{"runs", "next_cursor", "total"}. Raises errors.QueryError for a mistake in `where`, `sort` or `cursor`."""

    def run(self, project: str, run_id: str) -> Json | None:
        """One run as in docs/http-api.md; None if there is none."""

    def versions(self, runs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], int]:
        """The version of each of these runs (see RunChange); those that do not exist are left out. Cheap."""

    def columns(self, project: str) -> list[Json]:
        """What a table of the project's runs can show."""

    def keys(self, project: str, run_id: str, stream: str = "default") -> list[Json]:
        """The series of a run; none for an unknown run."""

    def chart(self, query: ChartQuery) -> list[SampledSeries]:
        """One SampledSeries for every run and key that has numbers."""

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
        """Exact merged rows in step order, in lists of at most 10,000 rows and about 50,000 values: memory does
        not grow with the run, nor with the number of its keys.

        `attempt`: only the rows of this one (1 is the first), those included that a later one supersedes.
        `start` is inclusive, `end` exclusive. `steps`: only the rows at these steps (a few thousand at most).
        """

    def attempts(self, project: str, run_id: str) -> list[Json]:
        """The run's attempts in order of their start, as in docs/http-api.md."""

    def writers(self, project: str, run_id: str) -> list[Json]:
        """What is stored of each writer, with rolling hash and declared losses."""

    def stats(self) -> Json:
        """Sizes and counts, for `status`."""


class EditPort(Protocol):
    """What a user may change."""

    def edit_run(self, project: str, run_id: str, changes: Mapping[str, Any]) -> bool:
        """Any of name, notes, tags, group, project (moves the run). False: no such run. Raises ConflictError."""

    def delete_run(self, project: str, run_id: str) -> bool:
        """False: no such run."""

    def rename_project(self, project: str, name: str) -> bool:
        """False: no such project. Raises ConflictError."""

    def delete_project(self, project: str) -> bool:
        """With all its runs. False: no such project."""

    def request_stop(self, project: str, run_id: str) -> bool:
        """Ask the run's process to stop. False: no such run."""


class ChangePort(Protocol):
    """Who wants to hear of commits."""

    def subscribe(self, listener: Callable[[Sequence[RunChange]], None]) -> Callable[[], None]:
        """Calls `listener` from the ingest thread after each commit; returns the function that ends it."""


class HubStore(IngestPort, ReadPort, EditPort, ChangePort, Protocol):
    """All of a hub's store."""

    def close(self) -> None:
        """Finish what is under way and let go of the files. Safe twice."""
