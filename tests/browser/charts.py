"""What a test can see of a chart: its words, its table of values, its pixels."""

from dataclasses import dataclass

from playwright.sync_api import Locator, Page, expect


def chart(page: Page, key: str) -> Locator:
    """The ready chart of a metric."""
    found = page.locator(f'figure.chart[data-key="{key}"]:not(.large)')
    expect(found).to_have_attribute("data-state", "ready")
    return found


def values(page: Page, key: str) -> dict[str, list[str]]:
    """Run name → last, minimum, maximum, points, from the enlarged chart's table."""
    chart(page, key).get_by_role("button", name=f"Enlarge {key}").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.locator("tbody tr").first).to_be_visible()
    rows = {
        row.locator("th").inner_text().strip(): row.locator("td").all_inner_texts()
        for row in dialog.locator("tbody tr").all()
    }
    dialog.get_by_role("button", name="Close").click()
    expect(dialog).to_have_count(0)
    return rows


def zoom(page: Page, figure: Locator, start: float, end: float) -> None:
    """Drag a box over this share (0 … 1) of the chart's width."""
    box = figure.locator(".u-over").bounding_box()
    assert box is not None
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + start * box["width"], y)
    page.mouse.down()
    page.mouse.move(box["x"] + (start + end) / 2 * box["width"], y, steps=3)
    page.mouse.move(box["x"] + end * box["width"], y, steps=3)
    with page.expect_response(lambda answer: "/api/v1/charts" in answer.url):
        page.mouse.up()
    page.mouse.move(box["x"] + box["width"] / 2, 2)


@dataclass
class Ink:
    """Where a chart's lines are, in shares of the plotting area; y = 0 at the bottom."""

    top: float
    top_x: float
    columns: int
    """Pixel columns with ink."""
    colours: int
    """Different saturated hues (in twelfths of the circle)."""


def ink(figure: Locator) -> Ink:
    """Reads the canvas back: pixels that are coloured, not grey as axes and grid are."""
    found = figure.locator("canvas").evaluate(
        """(canvas) => {
          const over = canvas.parentElement.querySelector('.u-over');
          const ratio = devicePixelRatio;
          const [left, top, width, height] = [over.offsetLeft, over.offsetTop, over.clientWidth, over.clientHeight]
            .map((v) => Math.round(v * ratio));
          const { data } = canvas.getContext('2d').getImageData(left, top, width, height);
          let first = null, columns = new Set(), hues = new Map();
          for (let y = 0; y < height; y += 1) for (let x = 0; x < width; x += 1) {
            const i = 4 * (y * width + x), a = data[i + 3];
            if (a < 120) continue;
            const [r, g, b] = [data[i], data[i + 1], data[i + 2]];
            const high = Math.max(r, g, b), low = Math.min(r, g, b);
            if (high - low < 60) continue;
            first ??= [x, y];
            columns.add(x);
            const d = high - low;
            const hue = high === r ? ((g - b) / d + 6) % 6 : high === g ? (b - r) / d + 2 : (r - g) / d + 4;
            const twelfth = Math.round(hue * 2) % 12;
            hues.set(twelfth, (hues.get(twelfth) ?? 0) + 1);
          }
          return { top: first ? 1 - first[1] / height : 0, top_x: first ? first[0] / width : -1,
                   columns: columns.size, colours: [...hues.values()].filter((n) => n > 20).length };
        }"""
    )
    return Ink(**found)
