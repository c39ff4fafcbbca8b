"""Charts: nothing hidden at any zoom, several runs in one picture, thousands of keys."""

import math
import re
import time

import pytest
from playwright.sync_api import Locator, Page, expect
from support.seeding import SeedHub
from support.serving import wait_for

from browser.charts import chart, ink, values, zoom
from browser.conftest import Watch

POINTS = 100_000
SPIKE = 61_234


@pytest.fixture(scope="module")
def spiky(hub: SeedHub) -> str:
    run = hub.run("spike", "r", name="spiky")
    run.log((step, {"loss": 50.0 if step == SPIKE else 1 + 0.1 * math.sin(step)}) for step in range(POINTS))
    return f"{hub.url}/p/spike/r/r"


def test_a_spike_of_one_step_is_visible_at_every_zoom(page: Page, spiky: str) -> None:
    page.goto(spiky)
    figure = chart(page, "loss")
    foot = figure.locator(".chart-foot")
    expect(foot).to_contain_text(re.compile(r"buckets of 100,000 points"))
    seen = ink(figure)
    assert seen.top > 0.9
    assert seen.top_x == pytest.approx(SPIKE / POINTS, abs=0.01)
    for _ in range(8):
        # A third of the picture around the spike, the spike off its middle.
        at = ink(figure).top_x
        start, end = max(0.0, at - 0.12), min(1.0, at + 0.2)
        zoom(page, figure, start, end)
        expect_ink_at(figure, (at - start) / (end - start))
        if "all shown" in foot.inner_text():
            break
    expect(foot).to_have_text(re.compile(r"^\d+ points, all shown$"))
    figure.locator(".u-over").dblclick(position={"x": 20, "y": 20})
    expect(foot).to_contain_text("of 100,000 points")


def expect_ink_at(figure: Locator, at: float) -> None:
    """The topmost ink comes to stand at this share of the width, near the top: the spike in the fresh answer."""
    deadline = time.monotonic() + 10
    while True:
        seen = ink(figure)
        if seen.top > 0.9 and abs(seen.top_x - at) < 0.05:
            return
        assert time.monotonic() < deadline, (seen, at)
        figure.page.wait_for_timeout(50)


def test_a_zoom_holds_for_its_section_and_is_exact(page: Page, hub: SeedHub, watch: Watch) -> None:
    run = hub.run("section", "r")
    run.log((step, {"train/a": step, "train/b": -step, "val/c": step}) for step in range(5_000))
    page.goto(f"{hub.url}/p/section/r/r")
    for key in ("train/a", "train/b", "val/c"):
        expect(chart(page, key).locator(".chart-foot")).to_contain_text("of 5,000 points")
    zoom(page, chart(page, "train/a"), 0.5, 0.6)
    zoom(page, chart(page, "train/a"), 0.5, 0.6)
    expect(chart(page, "train/b").locator(".chart-foot")).to_contain_text("all shown")
    expect(chart(page, "val/c").locator(".chart-foot")).to_contain_text("of 5,000 points")
    page.get_by_role("button", name="Reset the zoom of train/b").click()
    expect(chart(page, "train/a").locator(".chart-foot")).to_contain_text("of 5,000 points")


def test_several_runs_in_one_chart(page: Page, hub: SeedHub) -> None:
    for number in range(4):
        run = hub.run("compare", f"c{number}", name=f"compared-{number}")
        # Every run has steps of its own.
        run.log((step, {"loss": number + step / 1000}) for step in range(number, 1000, number + 1))
        run.finish()
    page.goto(f"{hub.url}/p/compare")
    found = values(page, "loss")
    assert found == {
        "compared-0": ["0.999", "0", "0.999", "1,000"],
        "compared-1": ["1.999", "1.001", "1.999", "500"],
        "compared-2": ["2.998", "2.002", "2.998", "333"],
        "compared-3": ["3.999", "3.003", "3.999", "250"],
    }
    figure = chart(page, "loss")
    assert ink(figure).colours == 4
    box = figure.locator(".u-over").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] * 0.7)
    tooltip = figure.locator(".tooltip")
    expect(tooltip.locator(".tooltip-name")).to_have_count(4)
    assert tooltip.locator(".tooltip-name").first.inner_text() == "compared-1", "nearest first"
    expect(page.locator('[data-run="c1"]')).to_have_class(re.compile("highlighted"))


def test_the_eye_takes_a_run_out_and_colours_stay(page: Page, hub: SeedHub) -> None:
    for number in range(3):
        hub.run("eyes", f"e{number}", name=f"eyed-{number}").log((s, {"loss": number + s / 100}) for s in range(100))
    page.goto(f"{hub.url}/p/eyes")
    assert ink(chart(page, "loss")).colours == 3

    def colours() -> dict[str, str]:
        read = "(e) => getComputedStyle(e).backgroundColor"
        return {n: page.locator(f'[data-run="{n}"] .swatch').evaluate(read) for n in ("e0", "e2")}

    before = colours()
    page.get_by_role("button", name="Draw eyed-1").click()
    expect(page.get_by_role("button", name="Draw eyed-1")).to_have_attribute("aria-pressed", "false")
    expect(chart(page, "loss").locator(".plot")).to_have_attribute("aria-label", re.compile("2 runs"))
    page.reload()
    expect(chart(page, "loss").locator(".plot")).to_have_attribute("aria-label", re.compile("2 runs"))
    assert colours() == before
    page.get_by_placeholder("Filter").fill("name = 'eyed-2'")
    expect(page.locator("[data-run]")).to_have_count(1)
    page.get_by_placeholder("Filter").fill("")
    expect(page.locator("[data-run]")).to_have_count(3)
    assert colours() == before


def test_non_finite_values_are_marked(page: Page, hub: SeedHub) -> None:
    run = hub.run("nan", "r")
    run.log((step, {"loss": math.nan if step == 5 else math.inf if step == 7 else 1.0}) for step in range(20))
    long = hub.run("nan", "long")
    long.log((step, {"deep": math.nan if step == 4_321 else 1.0}) for step in range(10_000))
    page.goto(f"{hub.url}/p/nan/r/r")
    expect(chart(page, "loss").locator(".chart-foot")).to_contain_text("NaN at step 5")
    page.goto(f"{hub.url}/p/nan/r/long")
    foot = chart(page, "deep").locator(".chart-foot")
    expect(foot).to_contain_text("NaN before step")
    foot.get_by_role("button").click()
    expect(foot).to_contain_text("NaN at step 4,321")


def test_axes_log_scale_and_smoothing_are_in_the_address(page: Page, hub: SeedHub) -> None:
    run = hub.run("axes", "r")
    run.log(((step, {"loss": 10.0 ** -(step / 10), "tokens": step * 512}) for step in range(50)), every_s=2)
    page.goto(f"{hub.url}/p/axes/r/r")
    figure = chart(page, "loss")
    straight = ink(figure)
    page.get_by_label("Log y").check()
    page.get_by_label("X axis").select_option("tokens")
    page.get_by_label("Smoothing").fill("0.5")
    page.get_by_label("Smoothing").dispatch_event("change")
    expect(page).to_have_url(re.compile(r"log=1.*"))
    for part in ("log=1", "x=tokens", "smooth=0.5"):
        assert part in page.url
    page.reload()
    expect(page.get_by_label("Log y")).to_be_checked()
    expect(page.get_by_label("X axis")).to_have_value("tokens")
    figure = chart(page, "loss")
    assert ink(figure).columns > 100
    assert straight.columns > 100
    box = figure.locator(".u-over").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 50)
    expect(figure.locator(".tooltip-x")).to_have_text(re.compile(r"^tokens 1[12],\d{3}$"))
    expect(figure.locator(".tooltip")).to_contain_text("raw")
    page.get_by_label("X axis").select_option("_relative")

    def tells_seconds() -> bool:
        # The chart that was there until now is replaced under the mouse; the new one waits for it to move.
        page.mouse.move(box["x"] + box["width"] / 2 - 3, box["y"] + 50)
        page.mouse.move(box["x"] + box["width"] / 2 + 3, box["y"] + 50)
        return bool(re.fullmatch(r"[45]\d s", "".join(figure.locator(".tooltip-x").all_text_contents())))

    wait_for(tells_seconds, "a tooltip in seconds")


def test_charts_are_usable_by_keyboard(page: Page, hub: SeedHub) -> None:
    hub.run("keyboard", "r").log((step, {"loss": float(step)}) for step in range(1001))
    page.goto(f"{hub.url}/p/keyboard/r/r")
    figure = chart(page, "loss")
    plot = figure.locator(".plot")
    plot.focus()
    page.keyboard.press("ArrowRight")
    expect(figure.locator(".tooltip-x")).to_contain_text("step 51")
    page.keyboard.press("+")
    expect(figure.locator(".chart-foot")).to_contain_text(re.compile("of 501 points|of 500 points"))
    page.keyboard.press("0")
    expect(figure.locator(".chart-foot")).to_contain_text("of 1,001 points")
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("row", name="r 1,000")).to_contain_text("1,000")
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    page.keyboard.press("/")
    expect(page.get_by_placeholder("Search metrics")).to_be_focused()


def test_ten_thousand_keys_do_not_freeze_the_page(page: Page, hub: SeedHub, watch: Watch) -> None:
    keys = [f"layer{number // 100}/w{number}" for number in range(10_000)]
    run = hub.run("wide", "r")
    run.log((step, {key: float(step + number) for number, key in enumerate(keys)}) for step in range(3))
    page.goto(f"{hub.url}/p/wide/r/r")
    chart(page, "layer0/w0")
    expect(page.get_by_role("toolbar").locator(".count")).to_have_text("10,000")
    assert page.evaluate("document.querySelectorAll('figure.chart').length") < 60, (
        "charts far from the screen are mounted"
    )
    assert page.evaluate("document.querySelectorAll('*').length") < 6_000
    asked = [r for r in watch.requests if "/api/v1/charts" in r.url]
    assert len(asked) <= 6, "keys of visible charts travel together"
    begin = time.monotonic()
    page.get_by_placeholder("Search metrics").fill(r"^layer(7|42)/w\d*99$")
    expect(page.get_by_role("toolbar").locator(".count")).to_have_text("2 of 10,000")
    assert time.monotonic() - begin < 5
    assert values(page, "layer42/w4299") == {"r": ["4,301", "4,299", "4,301", "3"]}
    chart(page, "layer7/w799")
    page.get_by_placeholder("Search metrics").fill("w99[")
    expect(page.get_by_placeholder("Search metrics")).to_have_attribute("aria-invalid", "true")


def test_sections_fold(page: Page, hub: SeedHub) -> None:
    hub.run("fold", "r").log([(0, {"a/x": 1.0, "b/y": 2.0})])
    page.goto(f"{hub.url}/p/fold/r/r")
    chart(page, "a/x")
    page.get_by_role("button", name="a 1").click()
    expect(page.locator('[data-key="a/x"]')).to_have_count(0)
    chart(page, "b/y")
