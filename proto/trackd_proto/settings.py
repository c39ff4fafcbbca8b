"""The settings: one table for SDK, courier, daemon and command line.

A value comes from the strongest layer that gives one:

==================== =============================================================================
layer                place
==================== =============================================================================
default              this table
system file          ``/etc/trackd/config.toml``
user file            ``$XDG_CONFIG_HOME/trackd/config.toml`` (``~/.config/trackd/config.toml``)
project file         the nearest ``trackd.toml``, from the working directory upwards to the root of the
                     git repository, the home directory or ``/``, whichever comes first
environment          ``TRACKD_<NAME>``; an empty variable counts as not set
init(settings=)      a mapping
argument             of ``init()`` or of the command line; None counts as not given
==================== =============================================================================

A bad value in a file or variable must not stop a training run: it is a `Problem`, and the lower layer's value
stands. Programs that are not training runs treat problems as errors. A bad value in ``init(settings=)`` or in an
argument is the caller's mistake and raises `SettingError`.

``TRACKD__*`` (two underscores) is for trackd's own use between its processes and is never a setting.
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args

import msgspec

from trackd_proto.limits import GIB, KIB, MIB

PROJECT_FILE: Final = "trackd.toml"
SYSTEM_FILE: Final = Path("/etc/trackd/config.toml")
PREFIX: Final = "TRACKD_"
INTERNAL_PREFIX: Final = "TRACKD__"

_UNITS: Final = {"": 1, "B": 1, "KB": 1000, "MB": 1000**2, "GB": 1000**3, "KIB": KIB, "MIB": MIB, "GIB": GIB}
_FLAGS: Final = {
    "1": True,
    "true": True,
    "yes": True,
    "on": True,
    "0": False,
    "false": False,
    "no": False,
    "off": False,
}


def _field(description: str, expected: str, **extra: object) -> msgspec.Meta:
    return msgspec.Meta(description=description, extra={"expected": expected, **extra})


_FLAG: Final = "true or false"
_TEXT: Final = "a text"
_SIZE: Final = 'a size in bytes or such as "2 GiB"'
_SECONDS: Final = "seconds, 0 or more"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Every setting with its default. "" and () mean "not set"."""

    home: Annotated[
        str,
        _field(
            "The one directory of all state: spools, sockets, WAL, embedded store. Setting it isolates everything. "
            "Not set: `$XDG_STATE_HOME/trackd`, else `~/.local/state/trackd`.",
            "a directory",
            path=True,
        ),
    ] = ""
    upstream: Annotated[
        str,
        _field(
            "Address of the hub that runs are sent to. Not set, or `embedded`: the hub inside the daemon of this user.",
            "HOST:PORT or embedded",
        ),
    ] = ""
    upstream_cookie: Annotated[
        str, _field("File holding the cookie of the upstream hub.", "a file", path=True, example="/srv/hub/cookie")
    ] = ""
    mode: Annotated[
        Literal["online", "offline", "disabled"],
        _field(
            "`online`: data goes to the hub as it is logged. `offline`: it stays in the run's directory until "
            "`trackd flush`. `disabled`: nothing is written.",
            "online, offline or disabled",
        ),
    ] = "online"
    project: Annotated[
        str,
        _field(
            "Project of new runs. Not set: the name of the git repository, else of the script's directory, else "
            "`uncategorized`.",
            _TEXT,
        ),
    ] = ""
    entity: Annotated[str, _field("Owner of new runs, as a label.", _TEXT)] = ""
    dir: Annotated[
        str,
        _field(
            "Directory in which `trackd-runs/` is made. Not set: the home if one is set, else the working directory.",
            "a directory",
            path=True,
        ),
    ] = ""
    run_id: Annotated[str, _field("Id of the run. Not set: 8 random characters.", _TEXT)] = ""
    name: Annotated[str, _field("Name of the run. Not set: two random words.", _TEXT)] = ""
    notes: Annotated[str, _field("Notes of the run.", _TEXT)] = ""
    tags: Annotated[
        tuple[str, ...], _field("Tags of the run.", "texts separated by commas, in TOML a list", example="a,b")
    ] = ()
    group: Annotated[str, _field("Group of the run.", _TEXT)] = ""
    job_type: Annotated[str, _field("Job type of the run.", _TEXT)] = ""
    resume: Annotated[
        Literal["", "allow", "must", "never", "auto"],
        _field("What happens when a run with this id exists.", "allow, must, never or auto"),
    ] = ""
    reinit: Annotated[
        Literal["default", "return_previous", "finish_previous", "create_new"],
        _field(
            "What a second `init()` does while a run is open. `default`: finish_previous in a notebook, else "
            "return_previous.",
            "default, return_previous, finish_previous or create_new",
        ),
    ] = "default"
    strict: Annotated[
        bool, _field("Mistakes in logging calls, such as `log()` after `finish()`, raise instead of warning.", _FLAG)
    ] = False
    silent: Annotated[bool, _field("Print nothing.", _FLAG)] = False
    quiet: Annotated[bool, _field("Print warnings and the links, nothing else.", _FLAG)] = False
    finish_timeout: Annotated[
        float,
        _field(
            "Longest wait of `finish()` for the hub, in seconds, where the local data would not outlive the job "
            "(container, tmpfs, scratch of a scheduler).",
            _SECONDS,
            minimum=0,
        ),
    ] = 60.0
    spool_quota_bytes: Annotated[
        int,
        _field(
            "Most that one training process keeps in its spool. 0: the smaller of 2 GiB and 2 % of the free space.",
            _SIZE,
            size=True,
            minimum=0,
        ),
    ] = 0
    wal_quota_bytes: Annotated[
        int,
        _field(
            "Most that the daemon keeps in its WAL. 0: the smaller of 10 GiB and 10 % of the file system.",
            _SIZE,
            size=True,
            minimum=0,
        ),
    ] = 0
    min_free_bytes: Annotated[
        int,
        _field(
            "Free space that trackd leaves on the file system of its home. 0: the smaller of 1 GiB and 5 % of it.",
            _SIZE,
            size=True,
            minimum=0,
        ),
    ] = 0
    http_port: Annotated[
        int,
        _field(
            "Port of the dashboard. 0: the one it had last, else any free one. One that is in use is replaced by "
            "another, which is said aloud.",
            "a port, 0 to 65535",
            minimum=0,
            maximum=65535,
        ),
    ] = 0
    idle_exit_s: Annotated[
        float,
        _field(
            "The daemon stops after so many seconds without a live writer or an open page. 0: never.",
            _SECONDS,
            minimum=0,
        ),
    ] = 12 * 3600.0

    def home_path(self, environ: Mapping[str, str] = os.environ) -> Path:
        """The home directory, absolute; it need not exist."""
        if self.home:
            return Path(self.home).expanduser().absolute()
        state = environ.get("XDG_STATE_HOME", "")
        return (Path(state) if state.startswith("/") else Path.home() / ".local/state") / "trackd"


NAMES: Final = Settings.__struct_fields__


class SettingError(ValueError):
    """A setting that the caller passed is unknown or wrong; the text says which, and what was expected."""


class Problem(msgspec.Struct, frozen=True):
    """A value in a file or a variable that could not be used."""

    place: str
    """The file or variable."""
    message: str
    """The whole sentence for the user: what, where, what was expected, what to do."""


class Loaded(msgspec.Struct, frozen=True):
    """Settings, where each came from, and what was wrong on the way."""

    settings: Settings
    origins: dict[str, str]
    """"default", a file's path, a variable's name, "init(settings=)" or "argument", by field."""
    problems: tuple[Problem, ...] = ()


def meta(name: str) -> msgspec.Meta:
    """Description and constraints of a field."""
    return next(part for part in get_args(Settings.__annotations__[name]) if isinstance(part, msgspec.Meta))


def variable(name: str) -> str:
    """The environment variable of a field."""
    return PREFIX + name.upper()


def load(
    overrides: Mapping[str, object] | None = None,
    arguments: Mapping[str, object] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    directory: Path | None = None,
    system_file: Path = SYSTEM_FILE,
) -> Loaded:
    """Settings from every layer.

    Args:
        overrides: what ``init(settings=)`` was given; unknown names are problems, wrong values raise.
        arguments: fields given as arguments; None means not given.
        environ: instead of the process's environment.
        directory: where the search for the project file begins, instead of the working directory.
        system_file: instead of ``/etc/trackd/config.toml``.

    Raises:
        SettingError: a value in `overrides` or `arguments` is wrong.
    """
    environ = os.environ if environ is None else environ
    problems: list[Problem] = []
    values: dict[str, object] = {}
    origins = dict.fromkeys(NAMES, "default")

    def put(name: str, value: object, place: str) -> None:
        values[name] = value
        origins[name] = place

    for file in _files(system_file, environ, directory, problems):
        for name, value in _file_values(file, problems):
            put(name, value, str(file))
    for name, value in _environment_values(environ, problems):
        put(name, value, variable(name))
    for name, raw in (overrides or {}).items():
        if name not in NAMES:
            problems.append(_unknown("init(settings=)", name))
        elif raw is not None:
            put(name, parse(name, raw, f"init(settings=) {name}"), "init(settings=)")
    for name, raw in (arguments or {}).items():
        if raw is not None:
            put(name, parse(name, raw, name), "argument")
    return Loaded(Settings(**values), origins, tuple(problems))  # type: ignore[arg-type]


def parse(name: str, raw: object, place: str) -> Any:
    """The value of field `name` from what a user wrote: text from a variable, or a TOML or Python value.

    Raises:
        SettingError: it is not what the field takes; the message names `place`.
    """
    annotation = Settings.__annotations__[name]
    kind, extra = get_args(annotation)[0], _extra(name)
    try:
        value = msgspec.convert(_prepare(name, raw, kind, extra), kind)
    except (ValueError, msgspec.ValidationError):
        raise SettingError(f"{place}: expected {extra['expected']}, got {raw!r}") from None
    if isinstance(value, (int, float)) and not extra.get("minimum", value) <= value <= extra.get("maximum", value):
        raise SettingError(f"{place}: expected {extra['expected']}, got {raw!r}")
    return value


def _extra(name: str) -> dict[str, Any]:
    extra = meta(name).extra
    assert extra is not None
    return extra


def _prepare(name: str, raw: object, kind: Any, extra: Mapping[str, Any]) -> object:
    """Text in the form that the field's type takes; everything else as it is."""
    if isinstance(raw, os.PathLike):
        raw = os.fspath(raw)
    if not isinstance(raw, str):
        return raw
    text = raw.strip()
    if kind is bool:
        return _FLAGS.get(text.lower(), raw)
    if extra.get("size"):
        return _size(text)
    if kind is int:
        return int(text)
    if kind is float:
        return float(text)
    if name == "tags":
        return [tag for tag in (part.strip() for part in text.split(",")) if tag]
    return _SPECIAL.get(name, str)(text)


def _size(text: str) -> int:
    number = text.rstrip("BKMGibkmg").rstrip()
    unit = text[len(number) :].strip().upper()
    if unit not in _UNITS:
        raise ValueError(text)
    return int(float(number) * _UNITS[unit])


def _address(text: str) -> str:
    if text in ("", "embedded"):
        return ""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536 or "/" in host:
        raise ValueError(text)
    return text


def _mode(text: str) -> str:
    return {"dryrun": "offline", "run": "online"}.get(text.lower(), text.lower())


_SPECIAL: Final[dict[str, Callable[[str], str]]] = {"upstream": _address, "mode": _mode}


def _unknown(place: str, name: str) -> Problem:
    message = f"{place}: there is no setting {name}; it is ignored.{_hint(name, NAMES)}"
    return Problem(place, message)


def _hint(name: str, known: Iterable[str]) -> str:
    import difflib  # noqa: PLC0415 - 5 ms that only a mistake needs

    near = difflib.get_close_matches(name, list(known), 1)
    return f" Did you mean {near[0]}?" if near else " `trackd config list` shows all."


def _environment_values(environ: Mapping[str, str], problems: list[Problem]) -> Iterator[tuple[str, object]]:
    for key, raw in environ.items():
        if not key.startswith(PREFIX) or key.startswith(INTERNAL_PREFIX) or raw == "":
            continue
        name = key[len(PREFIX) :].lower()
        if name not in NAMES or key != variable(name):
            hint = _hint(key, map(variable, NAMES))
            problems.append(Problem(key, f"{key} is not a variable that trackd knows; it is ignored.{hint}"))
            continue
        try:
            yield name, parse(name, raw, key)
        except SettingError as error:
            problems.append(Problem(key, f"{error}; the variable is ignored. Correct or unset it."))


def _files(
    system_file: Path, environ: Mapping[str, str], directory: Path | None, problems: list[Problem]
) -> Iterator[Path]:
    """The existing configuration files, weakest first."""
    configuration = environ.get("XDG_CONFIG_HOME", "")
    home = _home()
    user = Path(configuration) if configuration.startswith("/") else home / ".config" if home else None
    for file in (system_file, user / "trackd/config.toml" if user else None):
        if file is not None and _exists(file):
            yield file
    project = _project_file(directory, home)
    if project is None:
        return
    # A file that somebody else put on the way up (say in /tmp) must not redirect this user's data.
    owner = project.stat().st_uid
    if owner in (0, os.geteuid()):
        yield project
    else:
        problems.append(
            Problem(str(project), f"{project} belongs to another user (uid {owner}); it is ignored. Copy it to use it.")
        )


def _project_file(directory: Path | None, home: Path | None) -> Path | None:
    try:
        here = directory or Path.cwd()
    except OSError:  # the working directory was deleted
        return None
    for place in (here, *here.parents):
        if _exists(place / PROJECT_FILE):
            return place / PROJECT_FILE
        if place == home or _exists(place / ".git"):
            break
    return None


def _home() -> Path | None:
    try:
        return Path.home()
    except RuntimeError:  # a uid without a passwd entry and no HOME
        return None


def _exists(path: Path) -> bool:
    try:
        path.stat()
    except (OSError, ValueError):
        return False
    return True


def _file_values(file: Path, problems: list[Problem]) -> Iterator[tuple[str, object]]:
    if sys.version_info >= (3, 11):
        import tomllib  # noqa: PLC0415 - most machines have no file to read
    else:
        import tomli as tomllib  # noqa: PLC0415
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        advice = 'It holds lines such as project = "mnist". The file is ignored until it is corrected or removed.'
        problems.append(Problem(str(file), f"cannot read {file}: {error}. {advice}"))
        return
    for name, raw in table.items():
        if name not in NAMES:
            problems.append(_unknown(str(file), name))
            continue
        try:
            value = parse(name, raw, f"{file}: {name}")
        except SettingError as error:
            problems.append(Problem(str(file), f"{error}; the value is ignored. Correct or remove it."))
            continue
        if _extra(name).get("path") and value:  # a path in a file is relative to the file
            value = str(file.parent / Path(value).expanduser())
        yield name, value
