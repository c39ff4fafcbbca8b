"""The page of a run tells how often it was begun and how each attempt ended, and draws one alone if asked to."""

import re
import time

from playwright.sync_api import Page, expect
from support.seeding import SeedHub

from browser.charts import values


def test_one_curve_and_each_attempt_alone(page: Page, hub: SeedHub) -> None:
    now = time.time() - 4000
    killed = hub.run("again", "again1", name="often", created_s=now)
    killed.log((step, {"loss": 1000.0 + step}) for step in range(60))
    killed.finish("killed", 137, "out of memory: the kernel killed it")
    failed = hub.run("again", "again1", name="often", created_s=now + 1000)
    failed.log((step, {"loss": 2000.0 + step}) for step in range(40, 50))
    failed.finish("failed", 1, "ValueError: loss is NaN")
    fork = hub.run("again", "fork1", name="another", created_s=now + 2000, branch={"run_id": "again1", "step": 44})
    fork.log((step, {"loss": 3000.0 + step}) for step in range(45, 48))
    fork.finish("preempted", 138, "SIGUSR1 in SLURM job 7")

    page.goto(f"{hub.url}/p/again/r/again1")
    picker = page.get_by_label("Attempt", exact=True)
    expect(picker.locator("option")).to_have_text(
        ["one curve of 2 attempts", "attempt 1: steps 0 to 59, killed", "attempt 2: steps 40 to 49, failed"]
    )
    expect(page.locator(".run-header")).to_contain_text("Ended byValueError: loss is NaN")
    assert values(page, "loss") == {"often": ["2,049", "1,000", "2,049", "50"]}
    picker.select_option(label="attempt 1: steps 0 to 59, killed")
    expect(page).to_have_url(re.compile(r"\?attempt=1$"))
    told = page.get_by_role("region", name="Attempts")
    expect(told).to_contain_text("out of memory: the kernel killed it")
    expect(told).to_contain_text("replaces it from step 40 on")
    expect(page.locator('figure.chart[data-key="loss"] .chart-foot')).to_have_text("60 points, all shown")
    assert values(page, "loss") == {"often": ["1,059", "1,000", "1,059", "60"]}
    page.reload()
    expect(picker).to_have_value("1")
    expect(page.locator('figure.chart[data-key="loss"] .chart-foot')).to_have_text("60 points, all shown")
    picker.select_option(label="one curve of 2 attempts")
    expect(page.locator('figure.chart[data-key="loss"] .chart-foot')).to_have_text("50 points, all shown")

    page.goto(f"{hub.url}/p/again/r/fork1")
    expect(page.locator(".run-header")).to_contain_text("SIGUSR1 in SLURM job 7")
    assert values(page, "loss") == {"another": ["3,047", "1,000", "3,047", "48"]}
    page.get_by_role("link", name="again1").click()
    expect(page).to_have_url(f"{hub.url}/p/again/r/again1")
    expect(page.get_by_role("heading", name="often")).to_be_visible()
