"""Who may look: a link works once, without one there is a page that says what to do, and nothing leaves the hub."""

from collections.abc import Callable

from playwright.sync_api import BrowserContext, Page, expect
from support.seeding import SeedHub

from browser.charts import chart
from browser.conftest import Watch

Contexts = Callable[..., BrowserContext]


def test_a_link_works_once(new_context: Contexts, watch_of: dict[BrowserContext, Watch], hub: SeedHub) -> None:
    hub.run("once", "r").log([(0, {"loss": 1.0})])
    link = hub.link("/p/once/r/r")
    first = new_context()
    page = first.new_page()
    page.goto(link)
    chart(page, "loss")
    assert "ticket" not in page.url
    assert "ticket" not in page.evaluate("location.href")
    second = new_context()
    other = second.new_page()
    other.goto(link)
    expect(other.get_by_text("used before or is older")).to_be_visible()
    expect(other.get_by_text("trackd open")).to_be_visible()
    # The first browser keeps its session, also in another tab.
    tab = first.new_page()
    tab.goto(f"{hub.url}/p/once/r/r")
    chart(tab, "loss")
    for context in (first, second):
        watch_of[context].expected.append("401")
        watch_of[context].check({hub.url})


def test_without_a_session_the_page_says_what_to_do(
    new_context: Contexts, watch_of: dict[BrowserContext, Watch], hub: SeedHub
) -> None:
    context = new_context()
    page = context.new_page()
    answer = page.goto(f"{hub.url}/p/anything")
    assert answer is not None
    assert answer.status == 401
    expect(page.get_by_text("trackd open")).to_be_visible()
    watch_of[context].expected.append("401")
    watch_of[context].check({hub.url})


def test_a_session_that_ends_is_said_plainly(page: Page, hub: SeedHub, watch: Watch) -> None:
    hub.run("ends", "r").log([(0, {"loss": 1.0})])
    page.goto(f"{hub.url}/p/ends/r/r")
    chart(page, "loss")
    page.evaluate("localStorage.setItem('trackd_key', '00')")
    page.get_by_role("link", name="ends").click()
    expect(page.get_by_role("heading", name="Session ended")).to_be_visible()
    expect(page.get_by_text("trackd open")).to_be_visible()
    watch.expected.append("401")
    # A new link repairs it although the cookie is still there and the page is the one that is open.
    page.goto(hub.link("/p/ends"))
    chart(page, "loss")
    assert page.evaluate("localStorage.getItem('trackd_key')") != "00"


def test_the_key_is_sent_and_never_in_an_address(page: Page, hub: SeedHub, watch: Watch) -> None:
    hub.run("key", "r").log([(0, {"loss": 1.0})])
    page.goto(f"{hub.url}/p/key/r/r")
    chart(page, "loss")
    key = page.evaluate("localStorage.getItem('trackd_key')")
    asked = [r for r in watch.requests if "/api/v1/" in r.url and "/session" not in r.url]
    assert len(asked) > 4
    assert all(r.headers.get("x-trackd-key") == key for r in asked)
    assert not [r.url for r in watch.requests if key in r.url]


def test_nothing_breaks_the_content_security_policy(page: Page, hub: SeedHub) -> None:
    hub.run("csp", "r").log([(0, {"loss": 1.0})])
    page.add_init_script(
        "window.broken = []; addEventListener('securitypolicyviolation', (e) => broken.push(e.violatedDirective))"
    )
    for path in ("/", "/p/csp", "/p/csp/r/r"):
        answer = page.goto(hub.url + path)
        assert answer is not None
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        page.locator(".badge-live").first.wait_for()
        assert page.evaluate("broken") == []
