"""One run, read from the hub."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final

from trackd_proto.links import run_path as page_path
from trackd_proto.local.hub_client import HubClient, run_path

if TYPE_CHECKING:
    import pandas  # type: ignore[import-untyped]

_EDITABLE: Final = ("name", "notes", "tags", "group")
_ALWAYS: Final = ("_step", "_timestamp", "_runtime")
_STREAMS: Final = ("default", "system")


@dataclass(frozen=True)
class Attempt:
    """One `init()` of a run. Steps are those of its own rows; times are microseconds since the epoch."""

    number: int
    """From 1; what `history(attempt=...)` takes."""
    attempt: str
    """Its id: hex."""
    state: str
    exit_code: int | None
    cause: str | None
    started_us: int
    updated_us: int
    """When its last row was logged."""
    ended_us: int | None
    host: str | None
    pid: int | None
    rows: int
    first_step: int | None
    last_step: int | None
    superseded_from: int | None
    """From this step on the run's curve is a later attempt's; None: to its end it is this one's."""
    from_run: str | None
    """The run that it is a fork of (`init(fork_from=...)`)."""
    from_step: int | None
    """It begins behind this step of `from_run`, or of its own run (`init(resume_from=...)`)."""
    from_known: bool | None
    """Of a fork: whether anything of `from_run` has arrived at the hub."""


class Run:
    """A run as the hub has it. Attributes are as of the last load; `load()` asks again.

    `name`, `notes`, `tags` and `group` may be assigned; `update()` sends what was changed.
    """

    def __init__(self, client: HubClient, facts: dict[str, Any]) -> None:
        self._client = client
        self._take(facts)

    def _take(self, facts: dict[str, Any]) -> None:
        self._facts = facts
        self.id: str = facts["run_id"]
        self.project: str = facts["project"]
        self.name: str = facts["name"]
        self.notes: str | None = facts["notes"]
        self.tags: list[str] = list(facts["tags"])
        self.group: str | None = facts["group"]
        self.entity: str | None = facts["entity"]
        self.state: str = facts["state"]
        """running, finished, failed, killed, crashed, preempted or lost contact. Advisory."""
        self.config: dict[str, Any] = facts["config"]
        self.summary: dict[str, Any] = facts["summary"]
        """The last value of every key, and what the script set itself."""
        self.metadata: dict[str, Any] = facts["meta"]
        self.job_type: str | None = facts["job_type"]
        self.user: str | None = facts["user"]
        self.host: str | None = facts["host"]
        self.exit_code: int | None = facts["exit_code"]
        self.last_step: int | None = facts["last_step"]
        self.cause: str | None = facts["cause"]
        """What ended it, or why nothing is known: a signal, the exception, the out-of-memory kill."""
        self._attempts: list[Attempt] | None = None
        self.lost_records: int = facts["lost_records"]
        """Records that are declared lost (disk full); 0 in a healthy run."""

    def __repr__(self) -> str:
        return f"<Run {self.project}/{self.id} {self.name!r} ({self.state})>"

    @property
    def path(self) -> list[str]:
        """[project, id]"""
        return [self.project, self.id]

    @property
    def url(self) -> str:
        """The address of the run's page; `trackd open PROJECT/RUN` makes a link that lets a new browser in."""
        return self._client.url + page_path(self.project, self.id)

    @property
    def created_at(self) -> str:
        """When it began: ISO 8601, UTC."""
        return datetime.fromtimestamp(self._facts["created_us"] / 1e6, timezone.utc).isoformat().replace("+00:00", "Z")

    @property
    def traceback(self) -> str | None:
        """Of a failed run: the exception's, its tail."""
        if self.state == "failed" and self._facts["traceback"] is None and "_whole" not in self._facts:
            # A list of runs leaves it out.
            self._facts["traceback"] = self._client.get(self._api())["traceback"]
            self._facts["_whole"] = True
        return self._facts["traceback"]  # type: ignore[no-any-return]

    @property
    def attempts(self) -> "list[Attempt]":
        """Its attempts, from the first `init()` on: each that resumed it is another. As of the first look at them."""
        if self._attempts is None:
            self._attempts = [Attempt(**facts) for facts in self._client.get(self._api("/attempts"))["attempts"]]
        return self._attempts

    @property
    def duration_s(self) -> float | None:
        """Seconds from the first record to the last, or to the end of the run."""
        return self._facts["duration_s"]  # type: ignore[no-any-return]

    def load(self) -> "Run":
        """Ask the hub again; drops edits that were not sent. Raises NotFoundError when the run was deleted."""
        self._take(self._client.get(run_path(self.project, self.id)))
        return self

    def keys(self, stream: str = "default") -> dict[str, dict[str, Any]]:
        """The logged keys, each with type, count, last, last_step, min and max."""
        found = self._client.get(run_path(self.project, self.id) + "/keys", {"stream": _stream(stream)})["keys"]
        return {info.pop("key"): info for info in found}

    def losses(self) -> list[dict[str, Any]]:
        """What is declared lost: writer_id, role, first_seq, count and reason of each range; empty in a healthy run.

        Reasons: "full" (no space to keep it), "damaged" (a disk gave it back wrong), "trimmed", "rejected", "restored".
        """
        writers = self._client.get(self._api("/writers"))["writers"]
        return [{"writer_id": w["writer_id"], "role": w["role"], **loss} for w in writers for loss in w["losses"]]

    def history(
        self,
        samples: int = 500,
        keys: Sequence[str] | None = None,
        x_axis: str = "_step",
        pandas: bool = True,
        stream: str = "default",
        attempt: int | None = None,
    ) -> "pandas.DataFrame | list[dict[str, Any]]":
        """About `samples` rows that stand for the whole history: each bucket's minimum and maximum are among them.

        Args:
            samples: how many rows, about; a shorter history comes whole, of more than a million values fewer rows come.
            keys: only these keys (rows that have any of them); None for all.
            x_axis: order by it, dropping rows without it.
            pandas: a DataFrame, if pandas is installed; else a list of dicts.
            stream: "default" for what was logged, "system" for the machine's metrics (by time, without steps).
            attempt: only the attempt of this number (1 is the first, see `attempts`), with the rows that a later one
                superseded. None: the run's one curve, on which a later attempt replaces an earlier one from its first
                step on.

        `scan_history` gives every row.
        """
        chosen = _keys(keys)
        params = {"samples": samples, "keys": chosen, "x_axis": x_axis, "stream": _stream(stream), "attempt": attempt}
        rows: list[dict[str, Any]] = [] if chosen == [] else self._client.get(self._api("/history"), params)["rows"]
        return _frame(rows) if pandas else rows

    def scan_history(
        self,
        keys: Sequence[str] | None = None,
        page_size: int | None = None,
        min_step: int | None = None,
        max_step: int | None = None,
        stream: str = "default",
        attempt: int | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Every row exactly as logged, in step order, as it arrives; memory does not grow with the run.

        Args:
            keys: only these keys (rows that have any of them); None for all.
            page_size: taken for compatibility; rows are streamed, not paged.
            min_step: first step, inclusive.
            max_step: last step, exclusive.
            stream: "default" or "system".
            attempt: as in `history`.
        """
        chosen = _keys(keys)
        if chosen == []:
            return iter(())
        params = {"keys": chosen, "start": min_step, "end": max_step, "stream": _stream(stream), "attempt": attempt}
        return self._client.rows(self._api("/scan"), params)

    def update(self) -> None:
        """Send what was changed of name, notes, tags and group."""
        changes = {field: getattr(self, field) for field in _EDITABLE if getattr(self, field) != self._facts[field]}
        if changes:
            self._take(self._client.patch(self._api(), changes))

    def move(self, project: str) -> None:
        """Move the run to another project. Raises NameTakenError if that has a run of this id."""
        self._take(self._client.patch(self._api(), {"project": project}))

    def stop(self) -> None:
        """Ask the run's process to stop."""
        self._client.post(self._api("/stop"))

    def delete(self) -> None:
        """Delete the run with everything that was logged. There is no way back."""
        self._client.delete(self._api())

    def _api(self, rest: str = "") -> str:
        return run_path(self.project, self.id) + rest


def _stream(name: str) -> str:
    if name not in _STREAMS:
        raise ValueError(f"stream must be one of {', '.join(map(repr, _STREAMS))}, not {name!r}")
    return name


def _keys(keys: Sequence[str] | None) -> list[str] | None:
    if isinstance(keys, str):
        raise TypeError(f"keys must be a list of texts, not a text: keys=[{keys!r}]")
    # Every row has its step and times: they need not be asked for.
    chosen = [key for key in keys or () if key not in _ALWAYS]
    return None if keys is None or (keys and not chosen) else chosen


def _frame(rows: list[dict[str, Any]]) -> "pandas.DataFrame | list[dict[str, Any]]":
    try:
        import pandas  # noqa: PLC0415  (slow to load, and optional)
    except ImportError:
        warnings.warn(
            "pandas is not installed: history() returns a list of dicts. Install pandas, or say pandas=False.",
            stacklevel=3,
        )
        return rows
    return pandas.DataFrame(rows)
