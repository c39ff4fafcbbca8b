"""Names that nobody gave: ids, two-word names, the project of a script. No git process is started."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from trackd import words

ALPHABET: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
UNCATEGORIZED: Final = "uncategorized"
MAX_NAME: Final = 128
FORBIDDEN_IN_PROJECT: Final = "/\\#?%:"
FORBIDDEN_IN_ID: Final = ":;,#?/'\\"


def new_id() -> str:
    """Eight random characters of base 36."""
    return "".join(_choice(ALPHABET) for _ in range(8))


def new_name() -> str:
    """Two random words, such as ``calm-otter``."""
    return f"{_choice(words.FIRST)}-{_choice(words.SECOND)}"


def _choice(items: Sequence[str]) -> str:
    # As secrets.choice, whose module takes 3 ms to import.
    return items[int.from_bytes(os.urandom(8), "big") % len(items)]


def program() -> str:
    """Absolute path of the script that runs; "" in a notebook, an interactive session or ``python -c``."""
    script = getattr(sys.modules.get("__main__"), "__file__", None) or sys.argv[0] if sys.argv else ""
    if not script or script in ("-c", "-m", "-") or "ipykernel" in script:
        return ""
    path = Path(script).absolute()
    return str(path) if path.is_file() else ""


def default_project(script: str) -> str:
    """Name of the git repository around `script` (else the working directory), else of its directory."""
    folder = _folder(script)
    root = _git_root(folder) if folder else None
    name = (root or folder).name if folder and (root or script) else ""
    return _cleaned(name) or UNCATEGORIZED


def project_error(project: str) -> str:
    """Why `project` cannot name a project; "" if it can."""
    return _name_error(project, FORBIDDEN_IN_PROJECT)


def id_error(run_id: str) -> str:
    """Why `run_id` cannot be the id of a run; "" if it can."""
    return _name_error(run_id, FORBIDDEN_IN_ID)


def _name_error(text: str, forbidden: str) -> str:
    if not text or text != text.strip():
        return "it must not be empty or begin or end with a blank"
    if len(text.encode("utf-8", "replace")) > MAX_NAME:
        return f"it must not be longer than {MAX_NAME} bytes"
    bad = next((c for c in text if c in forbidden or not (c.isprintable() or c == " ")), "")
    if bad:
        return f"it must not contain {bad!r} (none of {' '.join(forbidden)} and no control characters)"
    return "it must not be . or .." if text in (".", "..") else ""


def _folder(script: str) -> Path | None:
    """Where the user's code lies: the script's directory, else (installed command, notebook) the working directory."""
    if script:
        folder = Path(script).parent
        if folder not in (Path(sys.prefix, "bin"), Path(sys.base_prefix, "bin")):
            return folder
    try:
        return Path.cwd()
    except OSError:
        return None


def _git_root(folder: Path) -> Path | None:
    for place in (folder, *folder.parents):
        if os.path.lexists(place / ".git"):
            return place
    return None


def _cleaned(name: str) -> str:
    text = "".join("-" if c in FORBIDDEN_IN_PROJECT or not c.isprintable() else c for c in name).strip()
    text = text.encode("utf-8", "replace")[:MAX_NAME].decode("utf-8", "ignore").strip()
    return "" if text in (".", "..") else text
