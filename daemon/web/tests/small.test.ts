import { describe, expect, it } from "vitest";
import { describeError } from "../src/api";
import { flatten, formatDuration, formatNumber, formatValue, valueAt, withValue } from "../src/format";
import { groupKeys, keySearch } from "../src/grouping";
import { repairLanguage } from "../src/guard";
import { ColourBook, STYLE_COUNT, styleOf } from "../src/palette";
import { parseRoute, projectPath, runPagePath } from "../src/router";
import { smoothLine } from "../src/smoothing";
import { visibleWindow } from "../src/virtual";

describe("formatNumber", () => {
  it.each([
    [0, "0"],
    [-0.5, "−0.5"],
    [0.123456, "0.1235"],
    [1234, "1,234"],
    [1e-4, "1e-4"],
    [1.5e-7, "1.5e-7"],
    [1.2346e12, "1.235e12"],
    [NaN, "NaN"],
    [-Infinity, "−∞"],
  ])("%d is %s", (value, text) => expect(formatNumber(value)).toBe(text));
});

describe("formatValue", () => {
  it("shows what JSON cannot say as it was logged", () => {
    expect(formatValue("int:9007199254740993")).toBe("9007199254740993");
    expect(formatValue("Infinity")).toBe("∞");
    expect(formatValue([1, "a"])).toBe('[1,"a"]');
    expect(formatValue(undefined)).toBe("");
  });
});

describe("formatDuration", () => {
  it.each([
    [0.25, "0.3 s"],
    [59, "59 s"],
    [60, "1 min"],
    [200, "3 min 20 s"],
    [7500, "2 h 5 min"],
    [90_000, "1 d 1 h"],
    [null, ""],
  ])("%s is %s", (seconds, text) => expect(formatDuration(seconds)).toBe(text));
});

describe("nested values", () => {
  const config = { model: { depth: 3, "drop.out": 0.1 }, "a.b": 1, lr: 0.1 };

  it("are found by dotted path, also when keys have dots", () => {
    expect(["lr", "model.depth", "model.drop.out", "a.b", "none.x"].map((path) => valueAt(config, path))).toEqual([0.1, 3, 0.1, 1, undefined]);
  });

  it("are flattened in natural order", () => {
    expect(flatten({ b10: 1, b2: { y: [1], x: null }, e: {} })).toEqual([
      ["b2.x", null],
      ["b2.y", [1]],
      ["b10", 1],
      ["e", {}],
    ]);
  });

  it("are changed without touching what was there before", () => {
    expect(withValue(config, "model.depth", 4)).toEqual({ ...config, model: { depth: 4, "drop.out": 0.1 } });
    expect(withValue({}, "val.loss", 1)).toEqual({ "val.loss": 1 });
    expect(config.model.depth).toBe(3);
  });
});

describe("groupKeys", () => {
  it("makes sections by prefix, unprefixed first, in natural order", () => {
    expect(groupKeys(["val/b", "layer10/w", "loss", "layer2/w", "val/a", "/odd", "cpu.load", "acc@0.5", "m.x/y"])).toEqual([
      { name: "charts", keys: ["/odd", "acc@0.5", "loss"] },
      { name: "cpu", keys: ["cpu.load"] },
      { name: "layer2", keys: ["layer2/w"] },
      { name: "layer10", keys: ["layer10/w"] },
      { name: "m.x", keys: ["m.x/y"] },
      { name: "val", keys: ["val/a", "val/b"] },
    ]);
  });
});

describe("keySearch", () => {
  it("is a regular expression, literal while it is not yet one", () => {
    expect(["Loss", "val/loss", "acc"].filter(keySearch("^loss|acc$").matches)).toEqual(["Loss", "acc"]);
    const open = keySearch("w[");
    expect(open.error).toMatch(/regular expression/i);
    expect(["w[0]", "w0"].filter(open.matches)).toEqual(["w[0]"]);
  });
});

describe("repairLanguage", () => {
  it("gives uPlot a language tag under the POSIX locale and leaves good ones alone", () => {
    const posix = { language: "en-US@posix" };
    repairLanguage(posix);
    expect(posix.language).toBe("en-US");
    const odd = { language: "@@" };
    repairLanguage(odd);
    expect(odd.language).toBe("en-US");
    const german = { language: "de-DE" };
    repairLanguage(german);
    expect(german.language).toBe("de-DE");
  });
});

describe("colours", () => {
  it("stay with a run, and no two runs share one before all are used", () => {
    let saved: [string, number][] = [];
    const book = new ColourBook([], (entries) => (saved = entries));
    const slots = Array.from({ length: STYLE_COUNT }, (_, index) => book.slot(`r${index}`));
    expect(new Set(slots).size).toBe(STYLE_COUNT);
    const later = new ColourBook(saved, () => {});
    expect(later.slot("r7")).toBe(book.slot("r7"));
    expect(styleOf(0)).not.toEqual(styleOf(10));
  });
});

describe("routes", () => {
  it("survive names with slashes, spaces and percent signs", () => {
    for (const name of ["a/b", "100%", "ein Projekt", "日本", "p?x=1#y"]) {
      expect(parseRoute(projectPath(name))).toEqual({ page: "project", project: name });
      expect(parseRoute(runPagePath(name, "r/1"))).toEqual({ page: "run", project: name, run: "r/1" });
    }
    expect(parseRoute("/")).toEqual({ page: "projects" });
    expect(parseRoute("/x/y").page).toBe("unknown");
    expect(parseRoute("/p/%E0%A4%A").page).toBe("project");
  });
});

describe("smoothLine", () => {
  it("leaves values at weight 0 and constants at any weight", () => {
    expect([...smoothLine([0, 1, 2], [1, NaN, 3], 0)]).toEqual([1, NaN, 3]);
    for (const value of smoothLine([0, 1, 5, 6], [2, 2, 2, 2], 0.9)) expect(value).toBeCloseTo(2);
  });

  it("is the debiased average of evenly spaced points", () => {
    const smooth = smoothLine([0, 1, 2], [1, 2, 4], 0.5);
    expect(smooth[1]).toBeCloseTo((1 * 0.25 + 2 * 0.5) / 0.75);
    expect(smooth[2]).toBeCloseTo((1 * 0.125 + 2 * 0.25 + 4 * 0.5) / 0.875);
  });

  it("does not spread NaN, and forgets more over a long gap", () => {
    const smooth = smoothLine([0, 1, 2], [1, NaN, 3], 0.6);
    expect(Number.isNaN(smooth[1])).toBe(true);
    expect(Number.isFinite(smooth[2])).toBe(true);
    const near = smoothLine([0, 1, 2, 3], [0, 0, 0, 1], 0.9)[3] as number;
    const far = smoothLine([0, 1, 2, 50], [0, 0, 0, 1], 0.9)[3] as number;
    expect(far).toBeGreaterThan(near);
  });
});

describe("visibleWindow", () => {
  it("keeps the rows on the screen and a few around them", () => {
    expect(visibleWindow(100_000, 30, 30_000, 600, 5)).toEqual({ start: 995, end: 1025 });
    expect(visibleWindow(3, 30, 0, 600)).toEqual({ start: 0, end: 3 });
    expect(visibleWindow(0, 30, 500, 600)).toEqual({ start: 0, end: 0 });
    expect(visibleWindow(10, 30, 9000, 600)).toEqual({ start: 10, end: 10 });
  });
});

describe("describeError", () => {
  it("finds message and position", () => {
    expect(describeError({ detail: "expected a value", position: 4 })).toEqual({ message: "expected a value", position: 4 });
    expect(describeError({ detail: [{ msg: "field required", loc: ["body"] }] }).message).toBe("field required");
    expect(describeError(null)).toEqual({ message: null, position: null });
  });
});
