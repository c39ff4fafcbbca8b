"""Code speaks of invariants and tests by number: the documentation must say what each of them is."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
NUMBER = re.compile(r"(?<![\w./-])(?:[TI][1-9]\d?p?|S[1-9]|S1[01])(?![\w-])")


def test_every_number_that_code_mentions_is_defined() -> None:
    defined = set(re.findall(r"^\| ([TSI]\d+p?) \|", (ROOT / "docs/reliability.md").read_text(), re.MULTILINE))
    mentioned: dict[str, str] = {}
    for folder in ("sdk", "daemon/trackd_daemon", "proto", "tests", "scripts"):
        for path in (ROOT / folder).rglob("*.py"):
            if "_pb2" not in path.name:
                mentioned |= dict.fromkeys(NUMBER.findall(path.read_text()), str(path.relative_to(ROOT)))
    assert len(mentioned) > 10, "the search finds nothing"
    assert {number: path for number, path in mentioned.items() if number not in defined} == {}
