"""Everything that the two READMEs tell a reader to type works as it stands there, in that order."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
READMES = ("README.md", "README.ja.md")
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#]+)\)")


def blocks(name: str, *languages: str) -> list[tuple[str, str]]:
    """(language, text) of the fenced blocks in these languages."""
    text = (ROOT / name).read_text(encoding="utf-8")
    return [(language, body) for language, body in FENCE.findall(text) if language in languages]


def environment() -> dict[str, str]:
    """The shell of somebody whose virtual environment is active."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "BROWSER": "true"}


def run(command: list[str], directory: Path) -> str:
    """What it printed. Fails the test if it fails."""
    done = subprocess.run(
        command,
        cwd=directory,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}"
    return done.stdout


def typed(line: str, directory: Path) -> str:
    """What a line printed. A reader types more slowly than a test: what asks for a run waits until its daemon, which
    may have been started by the line before, has it."""
    if line.startswith("trackd ls"):
        deadline = time.monotonic() + 30
        while subprocess.run(
            ["trackd", *line.split()[1:]], env=environment(), capture_output=True, check=False
        ).returncode:
            assert time.monotonic() < deadline, f"{line} still fails"
            time.sleep(0.2)
    return run(["sh", "-ec", line], directory)


@pytest.mark.parametrize("readme", READMES)
def test_what_it_says_works(readme: str, trackd_home: Path, tmp_path: Path) -> None:
    printed = ""
    for language, text in blocks(readme, "python", "sh"):
        if language == "python" and "trackd.init(" in text:
            (tmp_path / "train.py").write_text(text, encoding="utf-8")
        elif language == "python":
            printed += run([sys.executable, "-W", "error", "-c", text], tmp_path)
        else:
            for line in text.splitlines():
                if line.startswith("./scripts/"):
                    assert os.access(ROOT / line, os.X_OK), f"{line} cannot be run"
                else:
                    printed += typed(line, tmp_path)
    assert re.search(r"\bfinished 0\.1 0\.\d+ 50\b", printed), printed


def test_both_say_the_same() -> None:
    assert blocks(READMES[0], "python", "sh") == blocks(READMES[1], "python", "sh")
    assert figures(READMES[0]) == figures(READMES[1])


def figures(name: str) -> list[str]:
    """The cells of the table of figures, without the names of its rows."""
    text = (ROOT / name).read_text(encoding="utf-8")
    _, _, rest = text.partition("<!-- figures -->\n")
    lines = rest.partition("<!-- /figures -->")[0].splitlines()
    return [cell.strip() for line in lines for cell in line.split("|")[2:]]


@pytest.mark.parametrize("readme", READMES)
def test_its_links_lead_somewhere(readme: str) -> None:
    targets = [target for target in LINK.findall((ROOT / readme).read_text(encoding="utf-8")) if "://" not in target]
    missing = [target for target in targets if not (ROOT / target).exists()]
    assert targets
    assert not missing
