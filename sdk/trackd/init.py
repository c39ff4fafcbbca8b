"""`trackd.init()`: makes local state and returns. It waits for no daemon, hub, name service or git."""

import os
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from trackd_proto import limits
from trackd_proto import settings as table
from trackd_proto.settings import Settings

from trackd import arguments, branching, current, exit, messages, naming, notebook, places, resuming
from trackd.config import DEFAULTS_FILE, defaults_file, from_any
from trackd.errors import UnsupportedPlatformError
from trackd.identity import Identity, is_free_threaded
from trackd.lane import now_us
from trackd.run import Run, check_tags
from trackd.session import Session
from trackd.silence import NullLane

_UNSET: Final = object()


def init(
    entity: str | None = None,
    project: str | None = None,
    dir: str | os.PathLike[str] | None = None,
    id: str | None = None,
    name: str | None = None,
    notes: str | None = None,
    tags: Sequence[str] | None = None,
    config: Any = None,
    config_exclude_keys: list[str] | None = None,
    config_include_keys: list[str] | None = None,
    allow_val_change: bool | None = None,
    group: str | None = None,
    job_type: str | None = None,
    mode: str | None = None,
    force: bool | None = None,
    reinit: bool | str | None = None,
    resume: bool | str | None = None,
    resume_from: str | None = None,
    fork_from: str | None = None,
    save_code: bool | None = None,
    tensorboard: bool | None = None,
    sync_tensorboard: bool | None = None,
    monitor_gym: bool | None = None,
    settings: Any = None,
    anonymous: Any = _UNSET,
) -> Run:
    """Begin a run, or return the one that is open.

    Args:
        entity: owner, as a label.
        project: groups runs. Default: the git repository's name, else the script's directory's, else ``uncategorized``.
        dir: where ``trackd-runs/`` is made. Default: TRACKD_HOME if set, else the working directory.
        id: names the run within its project for ever. Default: 8 random characters.
        name: shown to people. Default: two random words.
        notes: free text.
        tags: labels, 1 to 64 characters each.
        config: inputs of the run: a dict, argparse.Namespace, absl flags, dataclass, path of a YAML file, …
        config_exclude_keys: keys of `config` to leave out.
        config_include_keys: the only keys of `config` to take.
        allow_val_change: config values may be changed later. Default: in notebooks.
        group: runs that belong together.
        job_type: such as "train" or "eval".
        mode: "online", "offline" (kept in the run's directory until ``trackd flush``) or "disabled".
        force: no effect: there is no login to force.
        reinit: what happens while a run is open: "return_previous" (default in scripts), "finish_previous"
            (default in notebooks), "create_new". Inside ``with trackd.init()`` the default is the open run.
        resume: what to do about a run of this `id` that exists. "allow": go on with it, or begin it; asks nobody.
            "must", "never": it has to exist, or must not; the hub is asked, for at most 10 seconds (when offline,
            ``trackd flush`` checks it). "auto" (True): as "allow", and without an `id` go on with the last run of this
            project and directory that did not end well, under a batch scheduler with the run of the same job.
        resume_from: such as "k3v9a0xq?_step=100": go on with that run behind that step. What it has logged behind it is
            no longer on its curve, and stays readable as an attempt of its own.
        fork_from: the same, as a new run: its history up to that step is the other run's, and its config where this
            call does not say otherwise. Both ask the hub, for at most 10 seconds (when offline, ``trackd flush`` does).
        save_code: no effect yet.
        tensorboard: no effect yet.
        sync_tensorboard: no effect yet.
        monitor_gym: no effect yet.
        settings: a dict of settings (docs/configuration.md); arguments are stronger.
        anonymous: no effect.

    Raises:
        TypeError, ValueError: an argument is wrong; the message names it and what was expected.
        ResumeError: `resume` is "must" and there is no such run, or "never" and there is one; `resume_from` or
            `fork_from` names no run, or the fork's own `id` is taken.
        ResumeUnknownError: the hub did not tell in time; the message says what to do.
        UnsupportedPlatformError: not Linux or macOS, or a free-threaded Python.
    """
    given = dict(locals())
    del given["anonymous"], given["settings"], given["config"]
    _check_platform()
    arguments.check(given)
    moment = branching.moment(resume_from, fork_from, id, resume)
    loaded = table.load(
        arguments.settings(settings),
        {
            "entity": entity,
            "project": project,
            "dir": dir,
            "run_id": id if moment is None or moment.is_fork else moment.run_id,
            "name": name,
            "notes": notes,
            "tags": None if tags is None else list(check_tags(tags)),
            "group": group,
            "job_type": job_type,
            "mode": _known_mode(mode),
            "resume": arguments.resume(resume) if moment is None else "",
            "reinit": arguments.reinit(reinit),
        },
    )
    messages.configure(silent=loaded.settings.silent, quiet=loaded.settings.quiet)
    for problem in loaded.problems:
        messages.warn_once(problem.message)
    values = _chosen_values(config, config_include_keys, config_exclude_keys)
    open_run = _open_run(loaded, id)
    if open_run is not None:
        _join(open_run, given, values)
        return open_run
    can_change = notebook.is_notebook() if allow_val_change is None else allow_val_change
    return _begin(loaded, values, can_change, moment)


def attach(identity: Identity) -> Run:
    """A new writer, in this process, of a run that another process began."""
    settings = table.load().settings
    if identity.mode == "disabled":
        return Run(identity, NullLane(), settings, is_owner=False)
    instance = places.open_instance(Path(identity.home))
    if instance is None:
        return Run(identity, NullLane(), settings, is_owner=False)
    session = Session.current(instance, _quota(settings, instance.home))
    lane = session.lane(identity.target(role="fork", announce=False), identity.start(is_main=False))
    run = Run(identity, lane, settings, is_owner=False)
    exit.install()
    current.add(run, is_current=current.last() is None)
    return run


def _begin(
    loaded: table.Loaded, values: dict[str, Any], can_change: bool, moment: branching.Moment | None = None
) -> Run:
    settings = loaded.settings
    is_current = settings.reinit != "create_new" or not current.runs()
    identity = msgspec.structs.replace(_identity(loaded), branch=moment)
    instance = None if settings.mode == "disabled" else places.open_instance(settings.home_path())
    if instance is None:
        identity = msgspec.structs.replace(identity, mode="disabled")
        run = Run(identity, NullLane(), settings, can_change_config=can_change)
    else:
        given = identity.run_id if _usable(loaded, "run_id", naming.id_error) else ""
        where = (instance.home, places.run_base(settings))
        if moment is not None:
            plan = resuming.branch(settings, identity.project, given, moment, instance.home)
        else:
            plan = resuming.plan(settings, identity.project, given, *where)
        identity = msgspec.structs.replace(identity, run_id=plan.run_id)
        run_dir = places.make_run_dir(settings, identity.run_id, identity.start_us)
        identity = msgspec.structs.replace(identity, run_dir=str(run_dir), home=str(instance.home))
        session = Session.current(instance, _quota(settings, instance.home))
        in_notebook = notebook.is_notebook()
        announce = not settings.silent and not in_notebook
        lane = session.lane(identity.target(role="main", announce=announce), identity.start(is_main=True))
        run = Run(identity, lane, settings, can_change_config=can_change)
        run.go_on(plan)
        exit.install()
        messages.say(f"run {run.name} ({run.path}), files in {run.dir}")
        if in_notebook and not settings.silent and settings.mode == "online":
            notebook.show_when_known(run)
    current.add(run, is_current=is_current)
    run.config.update(values, allow_val_change=True)
    return run


def _identity(loaded: table.Loaded) -> Identity:
    settings = loaded.settings
    script = naming.program()
    return Identity(
        project=_usable(loaded, "project", naming.project_error) or naming.default_project(script),
        run_id=_usable(loaded, "run_id", naming.id_error) or naming.new_id(),
        name=settings.name or naming.new_name(),
        is_name_generated=not settings.name,
        entity=settings.entity,
        notes=settings.notes,
        tags=settings.tags,
        group=settings.group,
        job_type=settings.job_type,
        resume=settings.resume,
        mode=settings.mode,
        route=settings.upstream or "embedded",
        attempt=uuid.uuid4().hex,
        start_us=now_us(),
        program=script,
    )


def _usable(loaded: table.Loaded, field: str, explain: Any) -> str:
    """The value of a setting that names something; "" if it is not set or (in a file or variable) cannot be used."""
    value: str = getattr(loaded.settings, field)
    why = explain(value) if value else ""
    if not why:
        return value
    if loaded.origins[field] in ("argument", "init(settings=)"):
        raise ValueError(f"{field}: {value!r} cannot be used: {why}")
    messages.warn_once(f"{loaded.origins[field]}: {field} {value!r} cannot be used: {why}; it is ignored")
    return ""


def _open_run(loaded: table.Loaded, run_id: str | None) -> Run | None:
    """The run that this call means if it means an open one; ends others where the setting says so."""
    open_runs = current.runs()
    if not open_runs:
        return None
    has_choice = loaded.origins["reinit"] != "default" and loaded.settings.reinit != "default"
    same = next((run for run in open_runs if run.id == run_id), None) if run_id else None
    entered = [run for run in open_runs if run.depth > 0]
    if not has_choice and entered:
        return same if run_id else entered[-1]
    choice = loaded.settings.reinit
    if choice == "default":
        choice = "finish_previous" if notebook.is_notebook() else "return_previous"
    if choice == "return_previous":
        return same or open_runs[-1]
    if choice == "finish_previous":
        for run in reversed(open_runs):
            run.finish()
    return None


def _join(run: Run, given: dict[str, Any], values: dict[str, Any]) -> None:
    """Say which arguments mean nothing to a run that is open; config values that are new are taken."""
    run.config.setdefaults(values)
    own = {"id": run.id, "project": run.project, "entity": run.entity, "name": run.name, "group": run.group}
    ignored = [
        key
        for key, value in given.items()
        if value is not None and key not in ("reinit", "force", "allow_val_change") and own.get(key, ...) != value
    ]
    ignored += [f"config.{key}" for key, value in values.items() if not _same(run.config[key], value)]
    if ignored:
        messages.warn_once(
            f"init() returned the open run {run.path}; without effect: {', '.join(ignored)}. For a run of its own: "
            'init(reinit="finish_previous") or init(reinit="create_new")'
        )


def _same(old: Any, new: Any) -> bool:
    try:
        return bool(old == new)
    except Exception:  # arrays
        return False


def _chosen_values(config: Any, include: Sequence[str] | None, exclude: Sequence[str] | None) -> dict[str, Any]:
    if include and exclude:
        raise ValueError("config_include_keys, config_exclude_keys: expected at most one of them")
    values = from_any(config)
    if include:
        values = {key: value for key, value in values.items() if key in include}
    if exclude:
        values = {key: value for key, value in values.items() if key not in exclude}
    try:
        return {**defaults_file(), **values}
    except ValueError as error:
        messages.warn_once(f"{error}. {DEFAULTS_FILE} is ignored; correct or remove it")
        return values


def _known_mode(mode: str | None) -> str | None:
    if mode == "shared":
        messages.warn_once('init(mode="shared") is taken as "online": several processes may always log to one run')
        return "online"
    return mode


def _quota(settings: Settings, home: Path) -> int:
    """Bytes that the spools of this process may take: 2 % of what is free, all sessions of this user together 25 %.

    Of the inodes the same: the smallest chunk is 1 MiB, and a file.
    """
    if settings.spool_quota_bytes:
        return settings.spool_quota_bytes
    status = os.statvfs(home)
    free = status.f_bavail * status.f_frsize
    if status.f_files:
        free = min(free, status.f_favail * limits.MIB)
    try:
        sessions = sum(len(os.listdir(path)) for path in home.glob("*/spool"))  # noqa: PTH208
    except OSError:  # one went away meanwhile
        sessions = 0
    return min(2 * limits.GIB, max(16 * limits.MIB, min(free // 50, free // 4 // (sessions + 1))))


def _check_platform() -> None:
    if not sys.platform.startswith(("linux", "darwin")):
        raise UnsupportedPlatformError(f"trackd runs on Linux and macOS, not on {sys.platform}")
    if is_free_threaded():
        raise UnsupportedPlatformError(
            "trackd does not support free-threaded builds of Python yet (this one is): use the ordinary build"
        )
