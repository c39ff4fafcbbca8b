import { describe, expect, it } from "vitest";
import { ChartFormatError, COLUMNS, decodeCharts } from "../src/chart-data";
import { encodeCharts, makeSeries } from "./helpers";

describe("decodeCharts", () => {
  it("reads every column of every series back, whatever the header's length", () => {
    // Keys of growing length move the data part through all eight alignments.
    for (let extra = 0; extra < 9; extra += 1) {
      const sent = [
        makeSeries("p", "r1", `loss${"x".repeat(extra)}`, [0, 1, 2], [0.5, NaN, -Infinity], { total: 300 }),
        makeSeries("p", "r2", "größe ✓", [10], [1e-300]),
      ];
      const answer = decodeCharts(encodeCharts(sent, { "p/r1": 7 }));
      expect(answer.version).toEqual({ "p/r1": 7 });
      expect(answer.series.map(({ project, runId, key, n, total }) => [project, runId, key, n, total])).toEqual([
        ["p", "r1", `loss${"x".repeat(extra)}`, 3, 300],
        ["p", "r2", "größe ✓", 1, 1],
      ]);
      sent.forEach((series, index) => {
        for (const column of COLUMNS) expect(answer.series[index]?.[column]).toEqual(series[column]);
      });
    }
  });

  it("does not copy the columns", () => {
    const buffer = encodeCharts([makeSeries("p", "r", "loss", [1, 2], [3, 4])]);
    expect(decodeCharts(buffer).series[0]?.x.buffer).toBe(buffer);
  });

  it("reads an answer without series", () => {
    expect(decodeCharts(encodeCharts([])).series).toEqual([]);
  });

  it("finds columns by name, not by place", () => {
    const sent = makeSeries("p", "r", "loss", [1, 2], [3, 4]);
    const answer = decodeCharts(encodeCharts([sent], {}, [...COLUMNS].reverse()));
    expect(answer.series[0]?.last).toEqual(sent.last);
    expect(answer.series[0]?.flags).toEqual(sent.flags);
  });

  it("refuses what is cut short or malformed", () => {
    const whole = encodeCharts([makeSeries("p", "r", "loss", [1, 2], [3, 4])]);
    expect(() => decodeCharts(new ArrayBuffer(3))).toThrow(ChartFormatError);
    expect(() => decodeCharts(whole.slice(0, 20))).toThrow(/ends inside its header/);
    expect(() => decodeCharts(whole.slice(0, -1))).toThrow(/ends inside "loss"/);
    expect(() => decodeCharts(encodeCharts([makeSeries("p", "r", "loss", [1], [2])], {}, ["x", "last"]))).toThrow(/no column "min"/);
    const noJson = new Uint8Array(16);
    noJson.set([4, 0, 0, 0, 123, 123, 123, 123]);
    expect(() => decodeCharts(noJson.buffer)).toThrow(/not JSON/);
  });
});
