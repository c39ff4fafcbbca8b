/** How charts are shown: kept in the address, so that a link shows the same. */

import { computed, signal, type ReadonlySignal, type Signal } from "@preact/signals";
import { queryValue, setQuery } from "../router";

export interface ChartViewState {
  /** "_step", "_relative", "_timestamp" or a metric. */
  xAxis: ReadonlySignal<string>;
  isLog: ReadonlySignal<boolean>;
  /** 0 … 0.99 */
  smoothing: Signal<number>;
  search: Signal<string>;
  setXAxis(axis: string): void;
  setLog(isLog: boolean): void;
  /** Writes smoothing and search, which move too often for that, into the address. */
  commit(): void;
}

export function makeViewState(): ChartViewState {
  const smoothing = signal(clampWeight(Number(queryValue("smooth"))));
  const search = signal(queryValue("q"));
  return {
    xAxis: computed(() => queryValue("x") || "_step"),
    isLog: computed(() => queryValue("log") === "1"),
    smoothing,
    search,
    setXAxis: (axis) => setQuery({ x: axis === "_step" ? "" : axis }),
    setLog: (isLog) => setQuery({ log: isLog ? "1" : "" }),
    commit: () => setQuery({ smooth: smoothing.value > 0 ? String(smoothing.value) : "", q: search.value }),
  };
}

function clampWeight(weight: number): number {
  return Number.isFinite(weight) ? Math.min(0.99, Math.max(0, weight)) : 0;
}
