"""A real Chromium that looks at a real hub."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Request, expect, sync_playwright
from support.seeding import SeedHub
from trackd_daemon.http import static

# A bound for a machine that is busy with other things; nothing waits longer than it must.
expect.set_options(timeout=20_000)

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    program = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.fail("no Chromium found: install it or name it in CHROMIUM")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        yield launched
        launched.close()


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeedHub]:
    """One hub for all tests: each uses projects of its own."""
    if not (static.DIRECTORY / "index.html").exists():
        pytest.fail("the dashboard is not built: run scripts/test, or `npm ci && npm run build` in daemon/web")
    made = SeedHub(tmp_path_factory.mktemp("hub"))
    yield made
    made.close()


@pytest.fixture
def own_hub(tmp_path: Path) -> Iterator[SeedHub]:
    """A hub that the test may stop, or that has no data."""
    made = SeedHub(tmp_path)
    yield made
    made.close()


class Watch:
    """What a page must never do: log an error, or ask another origin."""

    def __init__(self, context: BrowserContext) -> None:
        self.errors: list[str] = []
        self.requests: list[Request] = []
        # The tests read the canvas back, which no user's page does.
        self.expected: list[str] = ["willReadFrequently"]
        """Texts of errors that the test provokes."""
        context.on("console", lambda m: self.errors.append(m.text) if m.type in {"error", "warning"} else None)
        context.on("weberror", lambda e: self.errors.append(str(e.error)))
        context.on("request", lambda request: self.requests.append(request))

    def check(self, origins: set[str]) -> None:
        unexpected = [e for e in self.errors if not any(text in e for text in self.expected)]
        assert not unexpected, unexpected
        foreign = {r.url for r in self.requests if not r.url.startswith((*origins, "data:", "blob:"))}
        assert not foreign, foreign

    def count(self, part: str) -> int:
        return sum(part in request.url for request in self.requests)


@pytest.fixture
def watch_of() -> dict[BrowserContext, Watch]:
    return {}


@pytest.fixture
def new_context(browser: Browser, watch_of: dict[BrowserContext, Watch]) -> Iterator[Callable[..., BrowserContext]]:
    """Makes a browser profile; what its pages do is checked when the test is over."""
    made: list[BrowserContext] = []

    def make(**options: object) -> BrowserContext:
        wanted = {"locale": "en-US", "viewport": {"width": 1440, "height": 900}, **options}
        context = browser.new_context(**wanted)  # type: ignore[arg-type]
        context.set_default_timeout(20_000)
        watch_of[context] = Watch(context)
        made.append(context)
        return context

    yield make
    for context in made:
        context.close()


@pytest.fixture
def page(
    new_context: Callable[..., BrowserContext], watch_of: dict[BrowserContext, Watch], hub: SeedHub
) -> Iterator[Page]:
    """A page with a session of the shared hub."""
    context = new_context()
    opened = context.new_page()
    opened.goto(hub.link("/"))
    opened.get_by_role("heading", name="Projects").wait_for()
    watch = watch_of[context]
    watch.expected.append("401")  # the very first answer, before the ticket is exchanged
    yield opened
    watch.check({hub.url})


@pytest.fixture
def watch(page: Page, watch_of: dict[BrowserContext, Watch]) -> Watch:
    return watch_of[page.context]
