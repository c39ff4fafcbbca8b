"""Builds the dashboard into the daemon's package data: as a hatchling build hook, and as a script.

The page is git-ignored; a wheel carries it as an artifact. Without npm (or offline) a wheel is made without the page
and the daemon says how to get it; TRACKD_REQUIRE_WEB=1 makes that an error. An editable install never builds:
`scripts/test` and `scripts/quickstart` run this file for the checkout, and only when the sources are newer than the
last build.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run as a script, outside a build
    BuildHookInterface = object

_WEB = "daemon/web"
_PAGE = "daemon/trackd_daemon/http/static"
_NOT_SOURCES = {"node_modules", "dist", "test", "tests"}


class PageError(RuntimeError):
    """The dashboard could not be built; the text says why."""


class CustomBuildHook(BuildHookInterface):
    """Runs before hatchling collects the files of a wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Builds the page unless this is an editable install. A failure only warns: the SDK and agent work without."""
        if version == "editable":
            return
        try:
            build(Path(self.root))
        except PageError as error:
            if os.environ.get("TRACKD_REQUIRE_WEB") == "1":
                raise
            self.app.display_warning(f"the wheel has no dashboard: {error}")


def build(root: Path) -> bool:
    """Builds the page of the checkout at `root` if it is out of date; returns whether it did. Raises PageError."""
    web, page = root / _WEB, root / _PAGE
    if not (web / "package.json").is_file():
        if (page / "index.html").is_file():
            return False  # a source archive made with the page inside
        raise PageError(f"its sources are not in {web}")
    if is_current(web, page):
        return False
    npm = shutil.which("npm")
    if npm is None:
        raise PageError("npm is not installed (Node 20 or newer builds the page)")
    if not _has_modules(web):
        _run([npm, "ci", "--no-audit", "--no-fund", "--loglevel=error"], web)
        (web / "node_modules" / ".package-lock.json").touch()
    _run([npm, "run", "--silent", "build"], web)
    if not (page / "index.html").is_file():
        raise PageError(f"`npm run build` left no index.html in {page}")
    return True


def is_current(web: Path, page: Path) -> bool:
    """Whether the built page is newer than every file it is made from."""
    try:
        built = (page / "index.html").stat().st_mtime
    except FileNotFoundError:
        return False
    return all(path.stat().st_mtime <= built for path in _sources(web))


def _sources(web: Path) -> list[Path]:
    tops = [entry for entry in web.iterdir() if entry.name not in _NOT_SOURCES]
    return [path for top in tops for path in ([top] if top.is_file() else top.rglob("*")) if path.is_file()]


def _has_modules(web: Path) -> bool:
    try:
        return (web / "node_modules/.package-lock.json").stat().st_mtime >= (web / "package-lock.json").stat().st_mtime
    except FileNotFoundError:
        return False


def _run(command: list[str], directory: Path) -> None:
    done = subprocess.run(
        command, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode != 0:
        raise PageError(f"`{' '.join(command[1:])}` failed in {directory}:\n{done.stdout[-4000:]}")


def main() -> int:
    """`python scripts/build_hook.py`: brings the checkout's page up to date."""
    root = Path(__file__).resolve().parent.parent
    try:
        did = build(root)
    except PageError as error:
        print(f"error: no dashboard: {error}", file=sys.stderr)
        return 1
    print(f"dashboard {'built' if did else 'is up to date'}: {root / _PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
