"""`trackd.Api()`: projects and runs of the hub."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, overload

import msgspec
from trackd_proto import settings
from trackd_proto.local.hub_client import HubClient, project_path, run_path

from trackd.api import filters as grammar
from trackd.api import paths
from trackd.api.run import Run

_MAX_PAGE: Final = 1_000


@dataclass(frozen=True)
class Project:
    """A named group of runs. Times are microseconds since the epoch."""

    name: str
    runs: int
    live: int
    """Runs that are going on."""
    created_us: int
    updated_us: int


class Api:
    """Reads the hub of this user, starting it if none runs; or another one, given its address and a token."""

    def __init__(
        self,
        overrides: Mapping[str, str] | None = None,
        *,
        url: str | None = None,
        token: str | None = None,
        home: str | os.PathLike[str] | None = None,
    ) -> None:
        """Connect.

        Args:
            overrides: as in wandb: "project" for run paths that name none, "base_url" as `url`.
            url: the hub's address, ``http://127.0.0.1:PORT``; then `token` is needed.
            token: the hub's bearer token.
            home: the trackd home of the hub, instead of ``TRACKD_HOME`` or the default.

        Raises:
            NoHubError: no hub could be reached or started; the message says what to do.
        """
        given = dict(overrides or {})
        url = url or given.get("base_url")
        loaded = settings.load(arguments={"home": os.fspath(home)} if home is not None else None).settings
        self.default_project: Final = given.get("project") or loaded.project
        if (url is None) != (token is None):
            raise ValueError("url and token belong together: give both, or neither for this user's own hub")
        if url is not None and token is not None:
            self._client = HubClient(url, token)
        else:
            if home is not None:  # that home's own hub, wherever new runs go
                loaded = msgspec.structs.replace(loaded, upstream_cookie="")
            self._client = HubClient.of_settings(loaded)

    @property
    def url(self) -> str:
        """The hub's address."""
        return self._client.url

    def projects(self) -> list[Project]:
        """All projects, newest activity first."""
        return [Project(**facts) for facts in self._client.get("/projects")["projects"]]

    def runs(
        self,
        path: str | None = None,
        filters: str | Mapping[str, Any] | None = None,
        order: str = "+created_at",
        per_page: int = 50,
    ) -> "Runs":
        """The runs of a project, fetched page by page as they are looked at.

        Args:
            path: the project.
            filters: a text such as ``config.lr < 0.1 and state = finished``, or a dict as in wandb
                (``{"config.lr": {"$lt": 0.1}}``).
            order: a field, ``-`` before it for descending: ``created_at``, ``name``, ``summary.loss``, ``config.lr``.
            per_page: runs per request, 1 to 1000.

        Raises:
            BadQuestionError: a mistake in `filters` or `order` (when the first run is looked at).
        """
        project = paths.project_of(path or self.default_project)
        if not 1 <= per_page <= _MAX_PAGE:
            raise ValueError(f"per_page must be 1 to {_MAX_PAGE}, not {per_page!r}")
        return Runs(self._client, project, grammar.to_where(filters), grammar.to_sort(order), per_page)

    def run(self, path: str) -> Run:
        """One run: ``project/id`` or its address. Raises NotFoundError."""
        project, run_id = paths.split_run(path, self.default_project)
        return Run(self._client, self._client.get(run_path(project, run_id)))


class Runs:
    """Runs of a project, lazily: `len()`, iteration, indexing."""

    def __init__(self, client: HubClient, project: str, where: str, sort: str, per_page: int) -> None:
        self._client = client
        self._project = project
        self._params: dict[str, str | int] = {"where": where, "sort": sort, "limit": per_page}
        self._runs: list[Run] = []
        self._cursor = ""
        self._total: int | None = None

    def __repr__(self) -> str:
        return f"<Runs of {self._project}>"

    def __len__(self) -> int:
        if self._total is None:
            self._fetch()
        assert self._total is not None
        return self._total

    def __iter__(self) -> Iterator[Run]:
        index = 0
        while self._reach(index):
            yield self._runs[index]
            index += 1

    @overload
    def __getitem__(self, index: int) -> Run: ...

    @overload
    def __getitem__(self, index: slice) -> list[Run]: ...

    def __getitem__(self, index: int | slice) -> Run | list[Run]:
        stop = index.stop if isinstance(index, slice) else index + 1
        # Only what is asked for: from the end, or without one, means all.
        if stop is None or stop <= 0 or (isinstance(index, slice) and (index.start or 0) < 0):
            while self._reach(len(self._runs)):
                pass
        else:
            self._reach(stop - 1)
        return self._runs[index]

    def _reach(self, index: int) -> bool:
        """Fetch until run number `index` is here. Whether there is one."""
        while len(self._runs) <= index and (self._total is None or self._cursor):
            self._fetch()
        return index < len(self._runs)

    def _fetch(self) -> None:
        page = self._client.get(f"{project_path(self._project)}/runs", {**self._params, "cursor": self._cursor})
        self._runs += [Run(self._client, facts) for facts in page["runs"]]
        self._cursor, self._total = page["next_cursor"], page["total"]
