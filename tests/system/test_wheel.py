"""The wheel: small without the hub, and with it a dashboard on a machine that has no Node."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

ROOT = Path(__file__).parents[2]
PLAIN_INSTALL_BYTES = 60_000_000
NOT_OURS = ("pip", "setuptools", "pkg_resources", "_distutils_hack", "distutils-precedence.pth")

TRAINER = """
import sys, trackd
with trackd.init(project="wheel", name="from the wheel") as run:
    run.log({"loss": 0.5})
    print("logging", flush=True)
    for line in sys.stdin:
        run.log({"loss": float(line)})
"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def shell(venv: Path, home: Path) -> dict[str, str]:
    """The environment of a machine with this virtual environment, a shell, and nothing else: no Node, no git."""
    return {"PATH": str(venv / "bin"), "HOME": str(home), "TRACKD_HOME": str(home), "LANG": "C.UTF-8"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of what a clone would have, so that nothing that lies about in the checkout gets in."""
    if shutil.which("npm") is None:
        pytest.skip("a wheel with the dashboard is built with npm")
    where = tmp_path_factory.mktemp("wheel")
    environment = {**os.environ, "TRACKD_REQUIRE_WEB": "1"}
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(where), str(ROOT)]
    subprocess.run(pip, check=True, env=environment, timeout=300)
    (built,) = where.glob("trackd-*.whl")
    return built


@pytest.fixture(scope="module")
def venv(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh virtual environment with the wheel and what it needs, without extras."""
    made = tmp_path_factory.mktemp("machine") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(made)], check=True, timeout=120)
    install(made, str(wheel))
    return made


def install(venv: Path, what: str) -> None:
    subprocess.run([str(venv / "bin/python"), "-m", "pip", "install", "-q", what], check=True, timeout=300)


def test_the_plain_install_is_small_and_keeps_the_data(
    wheel: Path, venv: Path, trackd_home: Path, tmp_path: Path
) -> None:
    (packages,) = venv.glob("lib/python*/site-packages")
    files = [path for path in packages.rglob("*") if path.is_file()]
    ours = [path for path in files if not path.relative_to(packages).parts[0].startswith(NOT_OURS)]
    assert sum(path.stat().st_size for path in ours) <= PLAIN_INSTALL_BYTES

    done = subprocess.run(
        [str(venv / "bin/python"), "-c", TRAINER],
        input="0.4\n0.3\n",
        env=shell(venv, trackd_home),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "pip install 'trackd[hub]'" in done.stderr, f"it does not say how to see the data:\n{done.stderr}"

    install(venv, f"{wheel}[hub]")
    command(venv, trackd_home, "stop")  # the daemon that runs has no hub; the next one will
    command(venv, trackd_home, "flush", "--all")
    assert "from the wheel" in command(venv, trackd_home, "ls", "wheel")


def command(venv: Path, home: Path, *arguments: str) -> str:
    """What `trackd ARGUMENTS` of the wheel printed; it must succeed."""
    done = subprocess.run(
        [str(venv / "bin/trackd"), *arguments],
        env=shell(venv, home),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"trackd {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}"
    return done.stdout


@contextmanager
def training(venv: Path, home: Path, directory: Path) -> Iterator["subprocess.Popen[str]"]:
    """A live run that logs what is written to its standard input."""
    with subprocess.Popen(
        [str(venv / "bin/python"), "-c", TRAINER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=shell(venv, home),
        cwd=directory,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "logging\n"
        yield process
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(30) == 0


def test_the_dashboard_shows_a_live_run_without_node(
    wheel: Path, venv: Path, trackd_home: Path, tmp_path: Path
) -> None:
    install(venv, f"{wheel}[hub]")
    with training(venv, trackd_home, tmp_path), sync_playwright() as playwright:
        command(venv, trackd_home, "flush", "--all")
        opened = command(venv, trackd_home, "open", "--print", "wheel")
        (link,) = re.findall(r"http://127\.0\.0\.1:\d+/\S+", opened)
        program = os.environ.get("CHROMIUM") or shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.goto(link)
        expect(page.get_by_text("from the wheel").first).to_be_visible(timeout=30_000)
        browser.close()
