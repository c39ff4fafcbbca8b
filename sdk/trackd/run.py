"""`Run`: what `trackd.init()` returns."""

import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NoReturn

from trackd_proto import records
from trackd_proto.settings import Settings

from trackd import current, finishing, messages, notebook, places
from trackd.config import Config
from trackd.ending import Ending
from trackd.errors import UsageError
from trackd.identity import Identity
from trackd.lane import Lane
from trackd.resuming import Plan
from trackd.silence import NullLane
from trackd.summary import Summary

_URL_WAIT_S: Final = 2.0
_MAX_TAG: Final = 64


class Run:
    """One experiment. Log with `log`; end it with `finish`, or use it in a ``with`` statement.

    Works from any thread, in forked children, and in other processes that it was pickled to: all write to one run.
    """

    def __init__(
        self,
        identity: Identity,
        lane: Lane | NullLane,
        settings: Settings,
        *,
        can_change_config: bool = False,
        is_owner: bool = True,
    ) -> None:
        self._identity = identity
        self._lane = lane
        self._settings = settings
        self.pid = os.getpid()
        self.is_owner = is_owner
        """Whether this process called `init()` for it, so that its end is the run's."""
        self.was_current = False
        self.is_finished = False
        self._plan = Plan(identity.run_id)
        self.depth = 0
        """How many ``with`` blocks of this run are open."""
        self.url_waited = False
        self._fields: dict[str, Any] = {
            "name": identity.name,
            "notes": identity.notes,
            "tags": tuple(identity.tags),
            "group": identity.group,
        }
        self._disabled_dir = ""
        self.config = Config(lambda body: lane.append(records.CONFIG, body), can_change=can_change_config)
        self.summary = Summary(lambda body: lane.append(records.SUMMARY, body), lane.latest)
        # The hot path: no frame of ours between the caller and the lane.
        self.__dict__["log"] = lane.row

    # -- logging ------------------------------------------------------------------------------------------------------

    def log(self, data: Mapping[str, Any], step: int | None = None, commit: bool | None = None) -> None:
        """Record a row of values.

        Args:
            data: name → value; nested mappings have dotted names. ``{}`` writes nothing.
            step: the row's x coordinate, any integer in any order. None: this writer's next row.
            commit: whether the next row without a step begins a new one (default: when no `step` is given);
                False merges into that step without advancing. The values are readable at once in both cases.

        Raises:
            TypeError, ValueError: `data` is no mapping or `step` no 64-bit integer.
            UsageError: after `finish()`, with the setting ``strict``; without it the row is counted as refused.
        """
        self._lane.row(data, step, commit)

    @property
    def step(self) -> int:
        """The step that the next row without a step gets; in a resumed run as far as is known (`starting_step`)."""
        return self._lane.step + (self.starting_step if self._lane.has_ordinals else 0)

    @property
    def resumed(self) -> bool:
        """Whether this goes on with a run that existed. With resume="allow" nobody was asked: False."""
        return self._plan.is_resumed

    @property
    def starting_step(self) -> int:
        """First step of this attempt as the hub (resume="must"), `resume_from` or `fork_from` said; else 0."""
        return self._plan.starting_step

    @property
    def stop_requested(self) -> bool:
        """Whether somebody asked the run to stop, on the dashboard or with `trackd.Api`."""
        return self._lane.stop_requested()

    def flush(self, durable: bool = False, timeout_s: float | None = None) -> bool:
        """Hand on everything logged so far; wait until the daemon has it (`durable`: until it survives a power loss).

        Waits at most `timeout_s` seconds (None: the setting ``finish_timeout``); False when that was not enough.
        """
        self.config.persist()
        wait = self._settings.finish_timeout if timeout_s is None else timeout_s
        return self._lane.wait("durable" if durable else "received", wait)

    def finish(self, exit_code: int | None = None, wait_s: float | None = None) -> None:
        """End the run. In a forked or spawned child only this process's part of it.

        What is not in the hub by then is on disk and arrives by itself. The wait is short unless `wait_s` seconds are
        granted for the hub to have everything. Safe to call twice.

        Args:
            exit_code: 0 or None: finished; anything else: failed.
            wait_s: longest wait for the hub, in seconds.

        Raises:
            TypeError: an argument is not a number.
        """
        if exit_code is not None and (isinstance(exit_code, bool) or not isinstance(exit_code, int)):
            raise TypeError(f"finish(exit_code=...): expected an integer or None, got {type(exit_code).__name__}")
        if wait_s is not None and not isinstance(wait_s, (int, float)):
            raise TypeError(f"finish(wait_s=...): expected seconds or None, got {type(wait_s).__name__}")
        finishing.finish([self], Ending.of_code(exit_code), wait_s)

    def close(self, ending: Ending) -> bool:
        """Write the last records and close the lane, without waiting; False if that was done before."""
        if self.is_finished:
            return False
        if self.is_owner and self.pid == os.getpid():
            self.config.persist()
            self._lane.append(records.EXIT, ending.body())
            self._lane.keep_ending(ending.state, ending.exit_code)
            if ending.is_assumed:
                self._lane.assume_exit_code(ending.exit_code or 0)
            if ending.state == "finished" and self._plan.unfinished is not None:
                self._plan.unfinished.end(self.id)
        self._lane.on_refused = self._on_refused
        self._lane.close()
        self.is_finished = True
        current.remove(self)
        return True

    def _on_refused(self) -> None:
        text = f"run {self.id} is finished: log() was called afterwards"
        if self._settings.strict:
            raise UsageError(f"{text}; call trackd.init() for a new run")
        messages.warn_once(f"{text}; such rows are not recorded, only counted", f"refused {self.id}")

    # -- what it is ---------------------------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """Names the run within its project, for ever."""
        return self._identity.run_id

    @property
    def project(self) -> str:
        """Name of the project."""
        return self._identity.project

    @property
    def entity(self) -> str:
        """Owner, as a label; may be empty."""
        return self._identity.entity

    @property
    def job_type(self) -> str:
        """Job type; may be empty."""
        return self._identity.job_type

    @property
    def path(self) -> str:
        """``project/id``, as `trackd.Api().run()` takes it."""
        return f"{self.project}/{self.id}"

    @property
    def name(self) -> str:
        """Name shown to people; can be set."""
        return str(self._fields["name"])

    @name.setter
    def name(self, value: str) -> None:
        self._set("name", _text("name", value))

    @property
    def notes(self) -> str:
        """Free text; can be set."""
        return str(self._fields["notes"])

    @notes.setter
    def notes(self, value: str) -> None:
        self._set("notes", _text("notes", value))

    @property
    def group(self) -> str:
        """Group; can be set."""
        return str(self._fields["group"])

    @group.setter
    def group(self, value: str) -> None:
        self._set("group", _text("group", value))

    @property
    def tags(self) -> tuple[str, ...]:
        """Labels; can be set, also with ``run.tags += ("best",)``."""
        return tuple(self._fields["tags"])

    @tags.setter
    def tags(self, value: str | Iterable[str]) -> None:
        try:
            tags = check_tags(value)
        except (TypeError, ValueError) as error:  # hours into a training this is no reason to stop it
            messages.warn_once(f"{error}; the tags of run {self.id} stay as they are")
            return
        self._set("tags", tags)

    def _set(self, field: str, value: Any) -> None:
        self._fields[field] = value
        self._lane.append(records.UPDATE, {field: list(value) if field == "tags" else value})

    # -- where it is --------------------------------------------------------------------------------------------------

    @property
    def dir(self) -> str:
        """Directory for files of the run. Exists (a disabled run makes one in the temporary directory when asked)."""
        if self.disabled:
            self._disabled_dir = self._disabled_dir or places.make_temporary()
            return self._disabled_dir
        return str(Path(self._identity.run_dir) / "files")

    @property
    def run_dir(self) -> str:
        """Parent of `dir`; what `trackd flush` takes for an offline run."""
        return self._identity.run_dir

    @property
    def offline(self) -> bool:
        """Whether the data stays in `run_dir` until `trackd flush`."""
        return self._identity.mode == "offline"

    @property
    def disabled(self) -> bool:
        """Whether nothing is recorded."""
        return self._identity.mode == "disabled"

    @property
    def url(self) -> str | None:
        """Address of the run's page. Waits at most 2 seconds for the hub to be known, once; then None."""
        links = self.links()
        return links[0] if links else None

    @property
    def project_url(self) -> str | None:
        """Address of the project's page, as `url`."""
        links = self.links()
        return links[1] if links else None

    def links(self) -> tuple[str, str] | None:
        """(run, project), after at most 2 seconds."""
        if self._identity.mode != "online":
            return None
        deadline = time.monotonic() + (0 if self.url_waited else _URL_WAIT_S)
        while True:
            links = self._lane.links()
            if links is not None:
                return (links.run_url, links.project_url) if links.run_url else None
            if time.monotonic() >= deadline:
                self.url_waited = True
                return None
            time.sleep(0.01)

    # -- protocols ----------------------------------------------------------------------------------------------------

    def __enter__(self) -> "Run":
        self.depth += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.depth -= 1
        if self.depth <= 0:
            finishing.finish([self], Ending.of_error(error))

    def __repr__(self) -> str:
        return f"<trackd.Run {self.path} {self.name!r}>"

    def _repr_html_(self) -> str:
        return notebook.html(self._lane.links(), self.name, self.path)

    def __copy__(self) -> "Run":
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> "Run":
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        self.config.persist()
        explicit, deleted = self.summary.explicit
        state = (self._identity, self._fields, self.config.as_dict(), explicit, deleted)
        return _attach, state

    def go_on(self, plan: Plan) -> None:
        """Take over what the hub has of the run, which this call's own values then replace."""
        self._plan = plan
        facts = plan.facts
        if not facts:
            return
        for name in ("name", "notes", "tags", "group"):
            is_given = name != "name" or not self._identity.is_name_generated
            if facts.get(name) and not (is_given and self._fields[name]):
                self._fields[name] = tuple(facts[name]) if name == "tags" else facts[name]
        self.config.restore(facts["config"])
        self.summary.restore_logged(facts["summary"])

    def adopt(
        self, fields: dict[str, Any], config: dict[str, Any], explicit: dict[str, Any], deleted: set[str]
    ) -> None:
        """Take over what the process that began the run had recorded."""
        self._fields.update(fields)
        self.config.restore(config)
        self.summary.restore(explicit, deleted)


def _attach(identity: Identity, *state: Any) -> Run:
    """A Run that arrives by pickle: the open one of this process, else a new writer of the same attempt."""
    for run in current.runs() + current.attached():
        if run._identity.attempt == identity.attempt and not run.is_finished:
            return run
    from trackd.init import attach  # noqa: PLC0415 - it imports this module

    run = attach(identity)
    run.adopt(*state)
    return run


def check_tags(value: Any) -> tuple[str, ...]:
    """Tags as a tuple without repetitions. Raises TypeError, ValueError: naming the argument and what was expected."""
    tags = (value,) if isinstance(value, str) else value
    if not isinstance(tags, (list, tuple, set, frozenset)) or not all(isinstance(tag, str) for tag in tags):
        raise TypeError(f"tags: expected a list of texts, got {value!r}")
    for tag in tags:
        if not 1 <= len(tag) <= _MAX_TAG:
            raise ValueError(f"tags: expected 1 to {_MAX_TAG} characters in each, got {tag!r}")
    return tuple(dict.fromkeys(tags))


def _text(field: str, value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        _wrong(field, value)
    return value


def _wrong(field: str, value: object) -> NoReturn:
    raise TypeError(f"{field}: expected a text, got {type(value).__name__}")
