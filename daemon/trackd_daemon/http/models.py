"""The shapes of questions and answers, for OpenAPI and for checking what comes in.

Answers are encoded straight from the store's dicts (`encoding`), never through these classes: a test compares the
two. Non-finite floats and large integers are strings in JSON, hence `Number`.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel

Number = float | int | str


class Strict(BaseModel):
    """What comes in: unknown fields are a mistake worth telling."""

    model_config = ConfigDict(extra="forbid")


class Empty(Strict):
    """{}"""


class Problem(BaseModel):
    """Every answer that is no success."""

    detail: str
    position: int | None = Field(None, description="0-based character of `where` at which the mistake stands")


class TicketIn(Strict):
    """From the fragment of a link."""

    ticket: str


class KeyOut(BaseModel):
    """The half of a session that the page keeps."""

    key: str


class TicketOut(BaseModel):
    """A single-use way in."""

    ticket: str
    url: str
    expires_s: float


class HubOut(BaseModel):
    """What answers here."""

    version: str
    store_id: str
    role: str
    started_us: int
    lag_records: int
    warnings: list[str]


class ProjectOut(BaseModel):
    """A named group of runs."""

    name: str
    runs: int
    live: int
    created_us: int
    updated_us: int


class ProjectsOut(BaseModel):
    """Newest activity first."""

    projects: list[ProjectOut]


class ProjectEdit(Strict):
    """The project's new name."""

    name: Annotated[str, Field(min_length=1, max_length=512)]


class ColumnOut(BaseModel):
    """A value that runs of a project have."""

    path: str
    kind: Literal["config", "summary", "run"]
    type: Literal["number", "string", "bool", "mixed"]
    runs: int


class ColumnsOut(BaseModel):
    """Columns a table of runs may show."""

    columns: list[ColumnOut]


class RunOut(BaseModel):
    """One run. Times are microseconds since the epoch; `state` is advisory."""

    project: str
    run_id: str
    name: str | None
    entity: str | None
    state: str
    exit_code: int | None
    cause: str | None
    traceback: str | None
    """Of a failed run: the exception's, its tail. Only in answers about one run."""
    created_us: int
    updated_us: int
    ended_us: int | None
    duration_s: float | None
    notes: str | None
    tags: list[str]
    group: str | None
    job_type: str | None
    user: str | None
    host: str | None
    attempts: int
    last_step: int | str | None
    rows: int
    config: dict[str, Any]
    summary: dict[str, Any]
    meta: dict[str, Any]
    lost_records: int
    version: int


class RunsOut(BaseModel):
    """One page of runs."""

    runs: list[RunOut]
    next_cursor: str
    total: int


class RunEdit(Strict):
    """Fields to change; those left out stay."""

    name: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    notes: str | None = None
    tags: list[str] | None = None
    group: str | None = None
    project: Annotated[str, Field(min_length=1, max_length=512)] | None = None


class KeyInfo(BaseModel):
    """One series."""

    key: str
    type: Literal["number", "other"]
    count: int
    last: Any
    last_step: int | str | None
    min: Number | None
    max: Number | None


class KeysOut(BaseModel):
    """All series of a stream of a run."""

    keys: list[KeyInfo]


class Row(RootModel[dict[str, Any]]):
    """`_step`, `_timestamp` (epoch s), `_runtime` (s since the run's start) and the values of the keys it has."""


class RowsOut(BaseModel):
    """Sampled rows."""

    rows: list[Row]


class AttemptOut(BaseModel):
    """One `init()` of a run. Steps are those of its own rows, whether or not a later attempt supersedes them."""

    number: int
    """From 1 in order of their start; what `attempt=` takes elsewhere."""
    attempt: str
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
    first_step: int | str | None
    last_step: int | str | None
    superseded_from: int | str | None
    """From this step on the run's curve is a later attempt's; null: to its end it is this one's."""
    from_run: str | None
    """The run that it is a fork of."""
    from_step: int | str | None
    """Where it begins by its own words: behind this step of `from_run`, or (null) of its own run."""
    from_known: bool | None
    """Of a fork: whether anything of `from_run` has arrived."""


class AttemptsOut(BaseModel):
    """All attempts of a run."""

    attempts: list[AttemptOut]


class LossOut(BaseModel):
    """Seqs that are declared lost."""

    first_seq: int
    count: int
    reason: str


class WriterOut(BaseModel):
    """One lane of records and how far it is stored."""

    writer_id: str
    role: str
    pid: int | None
    host: str | None
    next_seq: int
    records: int
    crc32: int
    losses: list[LossOut]


class WritersOut(BaseModel):
    """All writers of a run."""

    writers: list[WriterOut]


class ChartRequest(Strict):
    """Several series of several runs on one grid."""

    runs: Annotated[list[tuple[str, str]], Field(max_length=2_000)]
    keys: Annotated[list[str], Field(max_length=2_000)]
    buckets: Annotated[int, Field(ge=1, le=20_000)] = 500
    x_axis: str = "_step"
    start: float | None = None
    end: float | None = None
    stream: Literal["default", "system"] = "default"
    attempt: Annotated[int | None, Field(ge=1)] = None
