"""From the projects over the runs to one run: the right values, live, in words and in pictures."""

import math
import re
import time
from collections.abc import Callable
from urllib.parse import quote

import pytest
from playwright.sync_api import BrowserContext, Page, expect
from support.seeding import SeedHub

from browser.charts import chart, ink, values
from browser.conftest import Watch


def test_from_projects_over_runs_to_a_run(page: Page, hub: SeedHub) -> None:
    for number, rate in enumerate((0.1, 0.01)):
        run = hub.run(
            "walk", f"walk{number}", name=f"walker-{number}", config={"lr": rate, "net": {"depth": 3}}, tags=["try"]
        )
        run.log((step, {"train/loss": 1 / (step + 1) + number, "acc": step / 100}) for step in range(100))
        run.finish()
    page.goto(hub.url)
    page.get_by_role("link", name="walk 2 runs").click()
    expect(page).to_have_url(f"{hub.url}/p/walk")
    row = page.locator('[data-run="walk1"]')
    expect(row).to_contain_text("walker-1")
    expect(row).to_contain_text("finished")
    expect(row).to_contain_text("try")
    expect(row.locator('[data-column="config.lr"]')).to_have_text("0.01")
    expect(row.locator('[data-column="summary.train/loss"]')).to_have_text("1.01")
    row.get_by_role("link", name="walker-1").click()
    expect(page.get_by_role("heading", name="walker-1")).to_be_visible()
    assert values(page, "train/loss") == {"walker-1": ["1.01", "1.01", "2", "100"]}
    assert values(page, "acc") == {"walker-1": ["0.99", "0", "0.99", "100"]}
    page.get_by_role("tab", name="Config").click()
    expect(page.get_by_role("row", name="net.depth")).to_contain_text("3")
    page.get_by_role("tab", name="Summary").click()
    expect(page.get_by_role("row", name="train/loss")).to_contain_text("1.01")
    page.get_by_role("tab", name="Metadata").click()
    expect(page.get_by_role("row", name="user")).to_contain_text("ada")
    page.get_by_role("tab", name="Delivery").click()
    expect(page.get_by_role("table", name="Writers")).to_contain_text("103")
    page.go_back()
    expect(page).to_have_url(f"{hub.url}/p/walk")


def test_a_live_point_appears_without_reload(page: Page, hub: SeedHub, watch: Watch) -> None:
    run = hub.run("live", "live1", name="lively")
    run.log([(0, {"loss": 3.0}), (1, {"loss": 2.0})])
    page.goto(f"{hub.url}/p/live/r/live1")
    plot = chart(page, "loss").locator(".plot")
    expect(plot).to_have_attribute("aria-label", re.compile("lively 2[.]"))
    loads = watch.count("/p/live")
    run.log([(2, {"loss": 0.625})])
    expect(plot).to_have_attribute("aria-label", re.compile(r"lively 0\.625"))
    expect(chart(page, "loss").locator(".chart-foot")).to_have_text("3 points, all shown")
    run.log([(3, {"brand/new": 42.0})])
    expect(chart(page, "brand/new").locator(".plot")).to_have_attribute("aria-label", re.compile("lively 42"))
    run.finish("failed", 3)
    expect(page.locator(".run-title .state")).to_contain_text("failed")
    assert watch.count("/p/live") == loads


def test_live_rows_and_new_runs_appear_in_the_table(page: Page, hub: SeedHub) -> None:
    run = hub.run("livetable", "one")
    run.log([(0, {"loss": 3.0})])
    page.goto(f"{hub.url}/p/livetable?cols=summary.loss,state")
    cell = page.locator('[data-run="one"] [data-column="summary.loss"]')
    expect(cell).to_have_text("3")
    run.log([(1, {"loss": 1.5})])
    expect(cell).to_have_text("1.5")
    other = hub.run("livetable", "two")
    other.log([(0, {"loss": 7.0})])
    expect(page.locator('[data-run="two"] [data-column="summary.loss"]')).to_have_text("7")
    expect(chart(page, "loss").locator(".plot")).to_have_attribute("aria-label", re.compile("2 runs"))
    page.goto(hub.url)
    hub.run("appeared", "x")
    expect(page.get_by_role("link", name="appeared 1 run")).to_be_visible()


def test_changes_are_pushed_and_asked_for_at_most_four_times_a_second(page: Page, hub: SeedHub, watch: Watch) -> None:
    run = hub.run("rate", "fast")
    run.log([(0, {"loss": 1.0})])
    page.goto(f"{hub.url}/p/rate/r/fast")
    plot = chart(page, "loss").locator(".plot")
    before = watch.count("/api/v1/charts")
    page.wait_for_timeout(1_200)
    assert watch.count("/api/v1/charts") == before, "nothing changed, yet the page asked: it polls"
    begin = time.monotonic()
    step = 0
    while time.monotonic() - begin < 2:
        step += 1
        run.log([(step, {"loss": float(step)})])
    expect(plot).to_have_attribute("aria-label", re.compile(f"fast {step:,}[.]"))
    elapsed = time.monotonic() - begin
    assert 2 <= watch.count("/api/v1/charts") - before <= 4 * elapsed + 2


def test_the_page_says_when_the_hub_is_gone_and_catches_up(
    new_context: Callable[..., BrowserContext], watch_of: dict[BrowserContext, Watch], own_hub: SeedHub
) -> None:
    run = own_hub.run("p", "r")
    run.log([(0, {"loss": 1.0})])
    context = new_context()
    page = context.new_page()
    page.goto(own_hub.link("/p/p/r/r"))
    badge = page.locator(".topbar .badge")
    plot = chart(page, "loss").locator(".plot")
    expect(badge).to_contain_text("Live")
    own_hub.stop_serving()
    expect(badge).to_have_class(re.compile("badge-(offline|stale)"))
    run.log([(1, {"loss": 0.125})])
    own_hub.serve_again()
    expect(badge).to_contain_text("Live")
    expect(plot).to_have_attribute("aria-label", re.compile(r"r 0\.125"))
    watch_of[context].expected += ["401", "ERR_", "net::"]
    watch_of[context].check({own_hub.url})


def test_odd_names_and_values(page: Page, hub: SeedHub) -> None:
    run = hub.run(
        "a/b %ü", "r 1", name="<b>bold</b>", config={"big": 2**60, "nan": math.nan, "text": "<i>x</i>", "list": [1, 2]}
    )
    run.log([(-5, {"loss/<x> & y": 1.0}), (2**40, {"loss/<x> & y": 2.0})])
    page.goto(hub.url)
    page.get_by_role("link", name="a/b %ü").click()
    page.get_by_role("link", name="<b>bold</b>").click()
    expect(page).to_have_url(f"{hub.url}/p/{quote('a/b %ü', safe='')}/r/r%201")
    assert values(page, "loss/<x> & y") == {"<b>bold</b>": ["2", "1", "2", "2"]}
    page.get_by_role("tab", name="Config").click()
    for key, text in (("big", str(2**60)), ("nan", "NaN"), ("text", "<i>x</i>"), ("list", "[1,2]")):
        expect(page.get_by_role("row", name=key)).to_contain_text(text)


def test_system_metrics_have_their_own_tab(page: Page, hub: SeedHub) -> None:
    run = hub.run("system", "r")
    run.log([(0, {"loss": 1.0})])
    run.system([{"gpu.0.power_w": 200.0 + i} for i in range(10)])
    page.goto(f"{hub.url}/p/system/r/r?tab=system")
    assert values(page, "gpu.0.power_w") == {"r": ["209", "200", "209", "10"]}
    expect(page.locator('[data-key="loss"]')).to_have_count(0)


def test_empty_states_say_what_to_do(
    new_context: Callable[..., BrowserContext], watch_of: dict[BrowserContext, Watch], own_hub: SeedHub
) -> None:
    context = new_context()
    page = context.new_page()
    page.goto(own_hub.link())
    expect(page.get_by_role("heading", name="No runs yet")).to_be_visible()
    expect(page.locator("pre")).to_contain_text("trackd.init(")
    run = own_hub.run("fresh", "r")
    page.goto(f"{own_hub.url}/p/fresh/r/r")
    expect(page.get_by_text("Waiting for the first number")).to_be_visible()
    run.log([(0, {"loss": 1.0})])
    chart(page, "loss")
    page.goto(f"{own_hub.url}/p/fresh/r/none")
    expect(page.get_by_text("There is no run none in fresh")).to_be_visible()
    page.goto(f"{own_hub.url}/nowhere/at/all")
    expect(page.get_by_text("There is no page /nowhere/at/all")).to_be_visible()
    watch_of[context].expected += ["401", "404"]
    watch_of[context].check({own_hub.url})


def test_notes_and_tags_are_kept(page: Page, hub: SeedHub) -> None:
    hub.run("notes", "r").log([(0, {"loss": 1.0})])
    page.goto(f"{hub.url}/p/notes/r/r")
    page.get_by_label("Notes").fill("looks good")
    page.get_by_label("Notes").press("Enter")
    page.get_by_label("Tags").fill("best, keep")
    with page.expect_response(lambda answer: answer.request.method == "PATCH"):
        page.get_by_label("Tags").press("Enter")
    page.reload()
    expect(page.get_by_label("Notes")).to_have_value("looks good")
    expect(page.get_by_label("Tags")).to_have_value("best, keep")
    kept = hub.store.run("notes", "r")
    assert kept is not None
    assert (kept["notes"], kept["tags"]) == ("looks good", ["best", "keep"])


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1440, 900), (390, 844)])
def test_fits_the_screen_in_both_themes(
    new_context: Callable[..., BrowserContext],
    watch_of: dict[BrowserContext, Watch],
    hub: SeedHub,
    theme: str,
    width: int,
    height: int,
) -> None:
    if hub.store.run("fits", "r") is None:
        run = hub.run("fits", "r", name="a-name-that-is-rather-long-for-a-telephone", tags=["alpha", "beta"])
        run.log(
            (step, {"train/loss": 1 / (step + 1), "a/very/long/metric/name/that/goes/on/and/on": 1.0})
            for step in range(50)
        )
    context = new_context(color_scheme=theme, viewport={"width": width, "height": height})
    page = context.new_page()
    page.goto(hub.link())
    page.get_by_role("heading", name="Projects").wait_for()
    for path in ("/", "/p/fits", "/p/fits/r/r", "/p/fits/r/r?tab=config"):
        page.goto(hub.url + path)
        page.get_by_text(re.compile("Live")).wait_for()
        if path.startswith("/p/fits") and "tab" not in path:
            assert ink(chart(page, "train/loss")).columns > 50
        overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert overflow <= 0, f"{path} is {overflow} px wider than the screen"
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    is_dark = sum(int(part) for part in re.findall(r"\d+", background)[:3]) < 300
    assert is_dark == (theme == "dark")
    page.get_by_role("button", name="Theme: as the system").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "light")
    watch_of[context].expected.append("401")
    watch_of[context].check({hub.url})


def test_a_posix_locale_does_not_break_the_charts(
    new_context: Callable[..., BrowserContext], watch_of: dict[BrowserContext, Watch], hub: SeedHub
) -> None:
    hub.run("posix", "r").log([(0, {"loss": 1.0}), (1, {"loss": 2.0})])
    context = new_context()
    context.add_init_script(
        "Object.defineProperty(navigator, 'language', { value: 'en-US@posix', configurable: true })"
    )
    page = context.new_page()
    page.goto(hub.link("/p/posix/r/r"))
    assert ink(chart(page, "loss")).columns > 50
    watch_of[context].expected.append("401")
    watch_of[context].check({hub.url})


def test_lost_records_are_said_plainly_with_their_reason(page: Page, hub: SeedHub) -> None:
    run = hub.run("losses", "lossy")
    run.log((step, {"loss": 1 / (step + 1)}) for step in range(10))
    run.lose(1234, "full")
    run.log((step, {"loss": 1 / (step + 1)}) for step in range(10, 20))
    page.goto(f"{hub.url}/p/losses/r/lossy")
    notice = page.locator("p.loss")
    expect(notice).to_contain_text("1,234 records lost: there was no space to keep them.")
    notice.get_by_role("button", name="Which").click()
    expect(page.get_by_role("table", name="Writers")).to_contain_text("1,234 from 13 (full)")
