"""Who may import whom: the layers of docs/architecture.md, read from the import statements of every module.

`LEVELS` is the one table: the first pattern that matches a module's dotted name gives its level, and a module that none
matches fails the test. An import counts wherever it stands in the file (inside functions too), except under
`if TYPE_CHECKING:`.
"""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TREES = {"trackd": "sdk", "trackd_daemon": "daemon", "trackd_proto": "proto"}

_PURE = """
    wal.backlog wal.frames wal.quota wal.state ingest.marks ingest.trimming upload.delivery upload.hop
    store.admission store.columns store.decode store.edges store.filters store.fixed_layout store.order store.sampling
    store.steps store.summaries
    http.charts http.encoding http.sampling
    doctor doctor.facts doctor.findings doctor.machine doctor.parts
"""
"""Level 1, in the daemon: name a module here when it is sans-I/O; the areas' defaults below are for the rest."""

LEVELS: list[tuple[str, str]] = [
    # shared: byte formats and names are pure; `v1` is generated; `places` says where things lie; `local` finds and
    # starts the daemon; settings read files
    ("trackd_proto.v1.*_grpc", "service"),
    ("trackd_proto.v1*", "messages"),
    ("trackd_proto.local", "places"),
    ("trackd_proto.local.places", "places"),
    ("trackd_proto.local.*", "local"),
    ("trackd_proto.settings", "settings"),
    ("trackd_proto*", "format"),
    # SDK
    ("trackd.courier*", "courier"),
    ("trackd.api*", "api"),
    ("trackd*.__main__", "program"),
    ("trackd_daemon.cli*", "program"),
    ("trackd_daemon.app", "program"),
    ("trackd_daemon.roles", "root"),
    ("trackd_daemon.embedded_hub", "root"),
    # level 0
    ("trackd_daemon", "leaf"),
    ("trackd_daemon.model", "leaf"),
    ("trackd_daemon.errors", "leaf"),
    ("trackd_daemon.ports", "leaf"),
    # level 1
    *((f"trackd_daemon.{name}", "pure") for name in _PURE.split()),
    # level 3: the network
    ("trackd_daemon.ingest*", "edge"),
    ("trackd_daemon.upload*", "edge"),
    ("trackd_daemon.http*", "edge"),
    ("trackd_daemon.lifecycle*", "lifecycle"),
    # level 2: disk, database
    ("trackd_daemon.wal*", "part"),
    ("trackd_daemon.store*", "part"),
    ("trackd_daemon.sampler*", "part"),
    ("trackd.*", "trainer"),
    ("trackd", "trainer"),
]

_IO_WORDS = """
    asyncio concurrent fcntl glob http io logging mmap multiprocessing os pathlib random secrets select selectors
    shutil signal socket sqlite3 ssl subprocess tempfile threading time urllib.error urllib.request uuid
"""
IO_MODULES = _IO_WORDS.split()
"""Standard library that a pure core has no use for: the outside world, the clock, chance, threads."""


@dataclass(frozen=True)
class Rule:
    """What the modules of a level may import."""

    levels: frozenset[str]
    """Levels of our own modules."""
    libraries: frozenset[str] | None
    """Top-level names of third-party packages; None: any."""
    has_io: bool = True
    """Whether it may import `IO_MODULES`."""


def _rule(levels: str, libraries: str | None, *, has_io: bool = True) -> Rule:
    return Rule(frozenset(levels.split()), None if libraries is None else frozenset(libraries.split()), has_io)


RULES: dict[str, Rule] = {
    "messages": _rule("messages", "google"),
    "service": _rule("messages service", "google grpc"),
    "format": _rule("format", "msgspec backports isal", has_io=False),
    "settings": _rule("format settings", "msgspec tomli"),
    "places": _rule("format settings places", "msgspec psutil"),
    "local": _rule("format settings messages service places local", None),
    "trainer": _rule("trainer format settings places", "msgspec"),
    "courier": _rule("courier format settings messages service places local trainer", None),
    "api": _rule("api format settings places local trainer", None),
    "leaf": _rule("leaf", "numpy", has_io=False),
    "pure": _rule("leaf pure format messages", "numpy msgspec", has_io=False),
    "part": _rule(
        "leaf pure part format settings messages places", "numpy msgspec duckdb sqlalchemy psutil pynvml google"
    ),
    "edge": _rule("leaf pure edge format settings messages service places local", None),
    "lifecycle": _rule("leaf lifecycle format settings messages places local", None),
    "root": _rule("leaf pure part edge lifecycle root format settings messages service places local", None),
    "program": _rule("leaf pure lifecycle root program format settings messages service places local", None),
}


@dataclass(frozen=True)
class Allowance:
    """An import that breaks its level's rule, and why it may."""

    module: str
    imported: str
    why: str


ALLOWANCES = [
    Allowance("trackd_proto.layout", "os", "os.fsencode: the length of a path in bytes"),
    Allowance("trackd_proto.layout", "pathlib", "joins paths, touches nothing"),
    Allowance("trackd", "trackd.api", "trackd.Api is imported when it is first asked for, never with the package"),
    Allowance("trackd.notebook", "IPython", "loaded already when there is a notebook; only looked at there"),
    Allowance("trackd.config", "yaml", "a config given as a YAML file, and only then"),
    Allowance("trackd_daemon.cli.runs", "trackd_daemon.http", "export and show are clients of the HTTP API"),
]


@dataclass(frozen=True)
class Module:
    """One source file and what it imports."""

    name: str
    path: Path
    imports: frozenset[tuple[str, int]] = field(compare=False)
    """(dotted name, line)"""

    @property
    def level(self) -> str | None:
        return next((level for pattern, level in LEVELS if fnmatchcase(self.name, pattern)), None)


def _module_name(path: Path, tree: Path) -> str:
    parts = list(path.relative_to(tree).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _is_type_checking(test: ast.expr) -> bool:
    return "TYPE_CHECKING" in (getattr(test, "id", ""), getattr(test, "attr", ""))


def _statements(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and _is_type_checking(child.test):
            yield from _statements(ast.Module(child.orelse, []))
        elif isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        else:
            yield from _statements(child)


def _imports(tree: ast.AST, name: str, is_package: bool) -> Iterator[tuple[str, int]]:
    for statement in _statements(tree):
        if isinstance(statement, ast.Import):
            yield from ((alias.name, statement.lineno) for alias in statement.names)
            continue
        base = statement.module or ""
        if statement.level:
            parts = name.split(".")
            parts = parts[: len(parts) - statement.level + is_package]
            base = ".".join([*parts, base]).rstrip(".")
        yield from ((f"{base}.{alias.name}", statement.lineno) for alias in statement.names)


def _load(path: Path, tree: Path) -> Module:
    name = _module_name(path, tree)
    parsed = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    return Module(name, path, frozenset(_imports(parsed, name, path.name == "__init__.py")))


@cache
def modules() -> dict[str, Module]:
    """Every module of the three packages, by dotted name."""
    found = {}
    for package, directory in TREES.items():
        tree = ROOT / directory
        for path in sorted((tree / package).rglob("*.py")):
            module = _load(path, tree)
            found[module.name] = module
    return found


def _resolve(imported: str, known: dict[str, Module]) -> str:
    """`from a import b` is module a.b if there is one, else a name in module a."""
    while imported not in known and "." in imported:
        imported = imported.rpartition(".")[0]
    return imported


def _problem(module: Module, imported: str, known: dict[str, Module]) -> str:
    """Why `module` may not import that, or nothing."""
    level = module.level
    assert level is not None
    rule = RULES[level]
    top = imported.partition(".")[0]
    if top == "__future__":
        return ""
    if top in TREES:
        target = _resolve(imported, known)
        if target not in known:
            return f"{imported} does not exist"
        other = known[target].level
        return "" if other in rule.levels else f"{target} is {other!r}; {level!r} may import {sorted(rule.levels)}"
    if top in sys.stdlib_module_names:
        is_io = any((imported + ".").startswith(name + ".") for name in IO_MODULES)
        return f"{imported} is I/O, clock or chance; {level!r} has none" if is_io and not rule.has_io else ""
    if rule.libraries is not None and top not in rule.libraries:
        return f"{top} is not among the libraries of {level!r}: {sorted(rule.libraries)}"
    return ""


def _is_excepted(module: str, imported: str) -> bool:
    return any(e.module == module and (imported + ".").startswith(e.imported + ".") for e in ALLOWANCES)


def problems(known: dict[str, Module]) -> list[str]:
    """Every import that its level does not allow, as `file:line: why`."""
    found = []
    for module in known.values():
        for imported, line in sorted(module.imports):
            why = "" if _is_excepted(module.name, imported) else _problem(module, imported, known)
            if why:
                found.append(f"{module.path.relative_to(ROOT)}:{line}: {module.name}: {why}")
    return found


def test_every_module_has_a_level() -> None:
    """A new module takes its place in the table before it is merged."""
    homeless = [m.name for m in modules().values() if m.level is None]
    assert not homeless, f"give these a level in LEVELS: {homeless}"


def test_imports_keep_to_the_layers() -> None:
    """The table of docs/architecture.md holds."""
    found = problems(modules())
    assert not found, "imports against the layers:\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("module", "source", "expected"),
    [
        ("trackd.run", "import trackd_daemon.model", "'leaf'"),
        ("trackd.run", "import trackd.courier.main", "'courier'"),
        ("trackd.run", "def f():\n    import grpc", "grpc is not among"),
        ("trackd.run", "from trackd_proto.v1 import ingest_pb2", "'messages'"),
        ("trackd.run", "from trackd_proto.local import instance", "'local'"),
        ("trackd_daemon.model", "import trackd", "'trainer'"),
        ("trackd_daemon.wal.frames", "import time", "clock"),
        ("trackd_daemon.wal.frames", "from asyncio import sleep", "I/O"),
        ("trackd_daemon.wal.frames", "from trackd_daemon.roles import build", "'root'"),
        ("trackd_daemon.http.app", "from trackd_daemon.store import hub", "'part'"),
        ("trackd_daemon.store.hub", "import grpc", "grpc is not among"),
        ("trackd_daemon.store.hub", "from ..http import app", "'edge'"),
    ],
)
def test_a_breach_is_found(module: str, source: str, expected: str) -> None:
    """The checker itself: each kind of forbidden import is reported."""
    known = modules() | {
        name: Module(name, ROOT / "x.py", frozenset())
        for name in ("trackd.courier.main", "trackd_daemon.roles", "trackd_daemon.store.hub", "trackd_daemon.http.app")
    }
    for name in ("trackd_daemon.store", "trackd_daemon.http", "trackd.courier", "trackd"):
        known.setdefault(name, Module(name, ROOT / "x.py", frozenset()))
    imports = frozenset(_imports(ast.parse(source), module, is_package=False))
    breaches = [_problem(Module(module, ROOT / "x.py", imports), imported, known) for imported, _ in imports]
    assert any(expected in breach for breach in breaches), breaches


def test_type_checking_imports_do_not_count() -> None:
    """Annotations may name what the code may not load."""
    source = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import grpc\nelse:\n    import json\n"
    assert {name for name, _ in _imports(ast.parse(source), "trackd.run", is_package=False)} == {
        "typing.TYPE_CHECKING",
        "json",
    }
