"""The table of runs: filter, order, columns, and 100,000 rows of which a screenful exists."""

import json
import re
from urllib.parse import parse_qs, urlsplit

from playwright.sync_api import Page, Route, expect
from support.seeding import SeedHub

from browser.conftest import Watch


def names(page: Page) -> list[str]:
    return page.locator("[data-run] .name-cell a").all_inner_texts()


def make_runs(hub: SeedHub, project: str, rates: list[float | None]) -> None:
    for number, rate in enumerate(rates):
        config = {"opt": "adam" if number % 2 else "sgd"} | ({} if rate is None else {"lr": rate})
        run = hub.run(project, f"r{number}", name=f"run-{number}", config=config, created_s=1_700_000_000 + number)
        run.log([(0, {"loss": 10.0 - number})])
        run.finish("failed" if number == 1 else "finished", int(number == 1))


def test_filter_by_the_grammar(page: Page, hub: SeedHub, watch: Watch) -> None:
    make_runs(hub, "filter", [0.1, 0.01, 0.001, None])
    page.goto(f"{hub.url}/p/filter")
    box = page.get_by_placeholder("Filter")
    for text, expected in (
        ("config.lr < 0.05", ["run-2", "run-1"]),
        ("state = failed", ["run-1"]),
        ("summary.loss >= 8 and not config.opt = adam", ["run-2", "run-0"]),
        ("run-3", ["run-3"]),
        ("", ["run-3", "run-2", "run-1", "run-0"]),
    ):
        box.fill(text)
        expect(page.locator("[data-run] .name-cell a")).to_have_text(expected)
    box.fill("config.lr < 0.05")
    expect(page.locator("[data-run]")).to_have_count(2)
    page.reload()
    expect(page.locator("[data-run]")).to_have_count(2)
    expect(box).to_have_value("config.lr < 0.05")
    watch.expected.append("400")
    box.fill("config.lr < 0.05 and )")
    alert = page.get_by_role("alert")
    expect(alert).to_be_visible()
    expect(alert.locator("mark")).to_have_text(")")
    box.fill("name = nobody")
    expect(page.get_by_text("No run matches this filter.")).to_be_visible()
    expect(alert).to_have_count(0)


def test_sort_by_a_header(page: Page, hub: SeedHub) -> None:
    make_runs(hub, "sort", [0.1, 0.001, None, 0.01])
    page.goto(f"{hub.url}/p/sort?cols=config.lr,summary.loss")
    rows = page.locator("[data-run] .name-cell a")
    expect(rows).to_have_text(["run-3", "run-2", "run-1", "run-0"])
    header = page.get_by_role("columnheader", name="lr")
    header.get_by_role("button").click()
    expect(rows).to_have_text(["run-1", "run-3", "run-0", "run-2"])
    expect(header).to_have_attribute("aria-sort", "ascending")
    header.get_by_role("button").click()
    expect(rows).to_have_text(["run-0", "run-3", "run-1", "run-2"])
    expect(header).to_have_attribute("aria-sort", "descending")
    page.reload()
    expect(rows).to_have_text(["run-0", "run-3", "run-1", "run-2"])
    page.get_by_role("columnheader", name="name").get_by_role("button").click()
    expect(rows).to_have_text(["run-0", "run-1", "run-2", "run-3"])


def test_columns_are_chosen_searched_and_kept(page: Page, hub: SeedHub) -> None:
    config = {f"option{number}": number for number in range(300)} | {"net": {"width": 64}}
    hub.run("columns", "r", config=config).log([(0, {"val/loss": 0.5})])
    page.goto(f"{hub.url}/p/columns")
    page.get_by_role("button", name="Columns").click()
    picker = page.get_by_role("group", name="Columns of the table")
    expect(picker.get_by_text("search to narrow")).to_be_visible()
    picker.get_by_label("Search columns").fill("width")
    picker.get_by_label("config.net.width").check()
    picker.get_by_label("Search columns").fill("loss")
    expect(picker.get_by_label("summary.val/loss")).to_be_checked()
    picker.get_by_label("summary.val/loss").uncheck()
    page.keyboard.press("Escape")
    expect(picker).to_have_count(0)
    expect(page.locator('[data-column="config.net.width"]')).to_have_text("64")
    page.goto(f"{hub.url}/p/columns")
    expect(page.locator('[data-column="config.net.width"]')).to_have_text("64")
    expect(page.locator('[data-column="summary.val/loss"]')).to_have_count(0)


def test_rows_are_reached_by_keyboard(page: Page, hub: SeedHub) -> None:
    make_runs(hub, "keys", [0.1, 0.2, 0.3])
    page.goto(f"{hub.url}/p/keys")
    page.get_by_role("link", name="run-2").focus()
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("link", name="run-1")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="run-1")).to_be_visible()


def test_a_hundred_thousand_runs(page: Page, hub: SeedHub) -> None:
    """The rows come from a stand-in for the hub's answer (seeding so many runs would take minutes)."""
    total, asked = 100_000, []
    hub.run("huge", "r0").log([(0, {"loss": 1.0})])
    template = hub.store.run("huge", "r0")
    assert template is not None

    def answer(route: Route) -> None:
        query = parse_qs(urlsplit(route.request.url).query)
        start, limit = int(query.get("cursor", ["0"])[0]), int(query["limit"][0])
        asked.append(start)
        rows = [{**template, "run_id": f"r{i}", "name": f"row-{i}"} for i in range(start, min(start + limit, total))]
        following = str(start + limit) if start + limit < total else ""
        route.fulfill(json={"runs": rows, "next_cursor": following, "total": total})

    page.route(re.compile("/api/v1/projects/huge/runs"), answer)
    page.route(re.compile("/api/v1/runs/huge/.*/keys"), lambda route: route.fulfill(body=json.dumps({"keys": []})))
    page.goto(f"{hub.url}/p/huge")
    expect(page.get_by_text("100,000 runs, 10 drawn")).to_be_visible()
    scroller = page.get_by_role("grid", name="Runs")
    expect(scroller).to_have_attribute("aria-rowcount", str(total + 1))
    for _ in range(30):
        before = len(asked)
        scroller.evaluate("(e) => { e.scrollTop = e.scrollHeight; }")
        if before < 30:
            page.wait_for_function(
                "(n) => performance.getEntriesByType('resource').filter(e => e.name.includes('/runs?')).length > n",
                arg=before,
            )
    assert page.locator("[data-run]").count() < 80
    assert len(asked) == len(set(asked)), "a page was asked for twice"
    scroller.evaluate("(e) => { e.scrollTop = 0; }")
    expect(page.get_by_role("link", name="row-0", exact=True)).to_be_visible()
