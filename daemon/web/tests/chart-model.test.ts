import { describe, expect, it } from "vitest";
import { chartFacts, extentX, extentY, findSpikes, hoverRows, makeLine, nearestIndex, padX, padY } from "../src/chart-model";
import { makeSeries } from "./helpers";

const style = { name: "run", colour: "#000", dash: [] };
const line = (series: ReturnType<typeof makeSeries>) => makeLine(series, style, 0);

describe("extents", () => {
  const spiky = makeSeries("p", "r", "loss", [10, 20, 30], [1, 2, 3], {
    total: 30,
    max: Float64Array.from([1, 99, 3]),
    min: Float64Array.from([-5, 2, 3]),
    min_x: Float64Array.from([4, 15, 30]),
  });

  it("include a spike that no drawn value shows", () => {
    expect(extentY([line(spiky)], [0, 40], false)).toEqual([-5, 99]);
  });

  it("are those of the zoomed range", () => {
    expect(extentY([line(spiky)], [25, 40], false)).toEqual([3, 3]);
  });

  it("leave out what a log axis cannot show, and what is not finite", () => {
    expect(extentY([line(spiky)], [0, 40], true)).toEqual([1, 99]);
    expect(extentY([line(makeSeries("p", "r", "k", [1, 2], [NaN, Infinity]))], [0, 9], false)).toBeNull();
  });

  it("begin where the first bucket's points do", () => {
    expect(extentX([line(spiky)])).toEqual([4, 30]);
    expect(extentX([])).toBeNull();
  });

  it("never give an empty range", () => {
    expect(padX([5, 5])).toEqual([4.5, 5.5]);
    for (const extent of [null, [0, 0], [7, 7], [-3, -3]] as const) {
      const [low, high] = padY(extent, false);
      expect(high).toBeGreaterThan(low);
    }
    const [low, high] = padY([1e-3, 1e-3], true);
    expect(low).toBeGreaterThan(0);
    expect(high).toBeGreaterThan(low);
  });
});

describe("nearestIndex", () => {
  it("agrees with looking at every entry", () => {
    const column = [0, 1, 4, 9, 16, 25];
    for (let x = -2; x < 30; x += 0.25) {
      const nearest = column.reduce((best, value, index) => (Math.abs(value - x) < Math.abs((column[best] as number) - x) ? index : best), 0);
      expect(Math.abs((column[nearestIndex(column, x)] as number) - x)).toBe(Math.abs((column[nearest] as number) - x));
    }
    expect(nearestIndex([], 1)).toBe(-1);
  });
});

describe("hoverRows", () => {
  it("puts the nearest run first and leaves out runs that ended elsewhere", () => {
    const lines = [
      line(makeSeries("p", "far", "k", [0, 10], [9, 9])),
      line(makeSeries("p", "near", "k", [0, 10], [1, 1])),
      line(makeSeries("p", "short", "k", [0, 2], [0, 0])),
      line(makeSeries("p", "nan", "k", [0, 10], [NaN, NaN])),
    ];
    const rows = hoverRows(lines, 9, 3, (row) => Math.abs(row.value - 0));
    expect(rows.map((row) => row.line.runId)).toEqual(["near", "far", "nan"]);
  });
});

describe("chartFacts", () => {
  it("counts what is shown and true, and finds the first non-finite value", () => {
    const sampled = makeSeries("p", "a", "k", [10, 20], [1, NaN], { total: 500 });
    const other = makeSeries("p", "b", "k", [5, 15], [1, Infinity]);
    expect(chartFacts([line(sampled), line(other)])).toEqual({
      shown: 4,
      total: 502,
      isSampled: true,
      firstNonFinite: { range: [15, 15], what: "+∞" },
    });
  });
});

describe("findSpikes", () => {
  it("finds what leaves its neighbours' band, at either end too, and leaves noise alone", () => {
    const min = [0, 0.1, 0, -9, 0.1, 0];
    const max = [1, 1.2, 7, 1, 1.1, 5];
    expect(findSpikes(min, max, 0, 6)).toEqual([
      { index: 2, isUpper: true },
      { index: 3, isUpper: false },
      { index: 5, isUpper: true },
    ]);
    expect(findSpikes([0], [1], 0, 1)).toEqual([]);
    expect(findSpikes([2, 1.75, 1.55], [2.3, 2, 1.75], 0, 3)).toEqual([]);
  });
});
