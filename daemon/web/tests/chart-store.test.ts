import { describe, expect, it } from "vitest";
import type { ChartAnswer } from "../src/chart-data";
import { ChartStore, type ChartData, type ChartNeed } from "../src/state/chart-store";
import type { ChartRequest, RunRef } from "../src/types";
import { makeSeries, until } from "./helpers";

const RUNS: RunRef[] = [
  ["p", "a"],
  ["p", "b"],
];

const need = (key: string, other: Partial<ChartNeed> = {}): ChartNeed => ({
  key,
  runs: RUNS,
  xAxis: "_step",
  range: null,
  buckets: 100,
  stream: "default",
  ...other,
});

/** A hub whose values tell which request they answer. */
class FakeHub {
  readonly requests: ChartRequest[] = [];
  readonly #held: (() => void)[] = [];
  isHolding = false;

  ask = async (request: ChartRequest): Promise<ChartAnswer> => {
    this.requests.push(request);
    const number = this.requests.length;
    if (this.isHolding) await new Promise<void>((resolve) => this.#held.push(resolve));
    const series = request.runs.flatMap(([p, r]) => request.keys.map((key) => makeSeries(p, r, key, [1], [number])));
    return { series, version: {} };
  };

  release(position: number): void {
    this.#held[position]?.();
  }
}

class Screen {
  data: ChartData = new Map();
  errors: string[] = [];
  answers = 0;
  onData = (data: ChartData): void => void (this.data = data);
  onAnswer = (): void => void (this.answers += 1);
  onError = (message: string): void => void this.errors.push(message);

  get values(): Record<string, number | undefined> {
    return Object.fromEntries([...this.data].map(([run, series]) => [run, series.last[0]]));
  }
}

describe("ChartStore", () => {
  it("asks for all charts of the same runs and range at once", async () => {
    const hub = new FakeHub();
    const store = new ChartStore(hub.ask, undefined, 0);
    const screens = ["loss", "acc", "lr"].map((key) => {
      const screen = new Screen();
      store.mount(need(key), screen);
      return screen;
    });
    await until(() => screens.every((screen) => screen.answers === 1));
    expect(hub.requests).toEqual([
      { runs: RUNS, keys: ["loss", "acc", "lr"], buckets: 100, x_axis: "_step", start: null, end: null, stream: "default" },
    ]);
    expect(screens.map((screen) => screen.values)).toEqual([{ a: 1, b: 1 }, { a: 1, b: 1 }, { a: 1, b: 1 }]);
  });

  it("cuts requests that would carry too much", async () => {
    const hub = new FakeHub();
    const store = new ChartStore(hub.ask, undefined, 0);
    const runs = Array.from({ length: 100 }, (_, index): RunRef => ["p", `r${index}`]);
    for (let index = 0; index < 10; index += 1) store.mount(need(`k${index}`, { runs, buckets: 800 }), new Screen());
    await until(() => hub.requests.length >= 5);
    expect(hub.requests.every((request) => request.runs.length * request.keys.length * request.buckets <= 200_000)).toBe(true);
    expect(hub.requests.flatMap((request) => request.keys).length).toBe(10);
  });

  it("asks again only for the run and keys that changed", async () => {
    const hub = new FakeHub();
    const store = new ChartStore(hub.ask, undefined, 0);
    const loss = new Screen();
    const acc = new Screen();
    store.mount(need("loss"), loss);
    store.mount(need("acc"), acc);
    await until(() => loss.answers === 1);
    store.markChanged("p", "b", ["loss"], false);
    store.markChanged("p", "unknown", ["loss"], false);
    store.markChanged("other", "a", ["loss"], false);
    await until(() => loss.answers === 2);
    expect(hub.requests[1]).toMatchObject({ runs: [["p", "b"]], keys: ["loss"] });
    expect(loss.values).toEqual({ a: 1, b: 2 });
    expect(acc.values).toEqual({ a: 1, b: 1 });
  });

  it("takes a change that could not name its keys as a change of all", async () => {
    const hub = new FakeHub();
    const store = new ChartStore(hub.ask, undefined, 0);
    const screen = new Screen();
    store.mount(need("loss"), screen);
    await until(() => screen.answers === 1);
    store.markChanged("p", "a", [], true);
    await until(() => screen.answers === 2);
    expect(hub.requests[1]?.runs).toEqual([["p", "a"]]);
  });

  it("asks at most once per interval while changes pour in", async () => {
    const hub = new FakeHub();
    const store = new ChartStore(hub.ask, undefined, 60);
    const screen = new Screen();
    store.mount(need("loss"), screen);
    const begin = Date.now();
    while (Date.now() - begin < 250) {
      store.markChanged("p", "a", ["loss"], false);
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
    const elapsed = Date.now() - begin;
    expect(hub.requests.length).toBeGreaterThan(1);
    expect(hub.requests.length).toBeLessThanOrEqual(Math.ceil(elapsed / 60) + 1);
    store.stop();
  });

  it("re-queries a zoomed range exactly and ignores the answer of the range before", async () => {
    const hub = new FakeHub();
    const store = new ChartStore(hub.ask, undefined, 0);
    const screen = new Screen();
    hub.isHolding = true;
    const handle = store.mount(need("loss"), screen);
    await until(() => hub.requests.length === 1);
    handle.update(need("loss", { range: [10, 20] }));
    hub.release(0);
    await until(() => hub.requests.length === 2);
    expect(hub.requests[1]).toMatchObject({ start: 10, end: 20 });
    expect(screen.values).toEqual({});
    hub.release(1);
    await until(() => screen.answers === 1);
    expect(screen.values).toEqual({ a: 2, b: 2 });
  });

  it("asks only for the runs that were added and forgets the removed", async () => {
    const hub = new FakeHub();
    const store = new ChartStore(hub.ask, undefined, 0);
    const screen = new Screen();
    const handle = store.mount(need("loss"), screen);
    await until(() => screen.answers === 1);
    handle.update(need("loss", { runs: [["p", "b"], ["p", "c"]] }));
    await until(() => screen.answers === 2);
    expect(hub.requests[1]?.runs).toEqual([["p", "c"]]);
    expect(screen.values).toEqual({ b: 1, c: 2 });
  });

  it("shows an error and recovers with the next change", async () => {
    const hub = new FakeHub();
    let isBroken = true;
    const store = new ChartStore((request) => (isBroken ? Promise.reject(new Error("the hub is away")) : hub.ask(request)), undefined, 0);
    const screen = new Screen();
    store.mount(need("loss"), screen);
    await until(() => screen.errors.length === 1);
    expect(screen.errors).toEqual(["the hub is away"]);
    isBroken = false;
    store.resync();
    await until(() => screen.answers === 1);
    expect(screen.values).toEqual({ a: 1, b: 1 });
  });

  it("shows a chart that scrolls back at once, then fresh", async () => {
    const hub = new FakeHub();
    const store = new ChartStore(hub.ask, undefined, 0);
    const first = new Screen();
    const handle = store.mount(need("loss"), first);
    await until(() => first.answers === 1);
    handle.unmount();
    const second = new Screen();
    store.mount(need("loss"), second);
    expect(second.values).toEqual({ a: 1, b: 1 });
    await until(() => second.answers === 1);
    expect(second.values).toEqual({ a: 2, b: 2 });
  });
});
