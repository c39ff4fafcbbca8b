/** What a chart shows, without drawing it: extents, ranges, the nearest points. Pure. */

import { FLAG_NAN, FLAG_NEG_INF, FLAG_POS_INF, type Series } from "./chart-data";
import { smoothLine } from "./smoothing";

export type Range = readonly [number, number];

export interface Line {
  runId: string;
  name: string;
  colour: string;
  dash: number[];
  series: Series;
  /** What the line goes through: the last value of each bucket, or its smoothed mean. */
  y: Float64Array;
  isSmoothed: boolean;
}

export interface LineStyle {
  name: string;
  colour: string;
  dash: number[];
}

export function makeLine(series: Series, style: LineStyle, smoothing: number): Line {
  const isSmoothed = smoothing > 0;
  const y = isSmoothed ? smoothLine(series.x, series.mean, smoothing) : series.last;
  return { runId: series.runId, ...style, series, y, isSmoothed };
}

/** From the first to the last x of all lines; null without points. */
export function extentX(lines: readonly Line[]): Range | null {
  let low = Infinity;
  let high = -Infinity;
  for (const { series } of lines) {
    if (series.n === 0) continue;
    for (const column of [series.x, series.min_x, series.max_x]) {
      const first = column[0] as number;
      if (first < low) low = first;
    }
    high = Math.max(high, series.x[series.n - 1] as number);
  }
  return low <= high ? [low, high] : null;
}

/** Smallest and largest finite value in an x range, envelope included; with `isLog` only what a log scale can show. */
export function extentY(lines: readonly Line[], range: Range, isLog: boolean): Range | null {
  let low = Infinity;
  let high = -Infinity;
  const take = (value: number): void => {
    if (!Number.isFinite(value) || (isLog && value <= 0)) return;
    if (value < low) low = value;
    if (value > high) high = value;
  };
  for (const { series, y } of lines) {
    for (let i = 0; i < series.n; i += 1) {
      const x = series.x[i] as number;
      const firstX = Math.min(x, series.min_x[i] as number, series.max_x[i] as number);
      if (x < range[0] || firstX > range[1]) continue;
      take(series.min[i] as number);
      take(series.max[i] as number);
      take(y[i] as number);
    }
  }
  return low <= high ? [low, high] : null;
}

/** A y range with air around the values; never empty, positive on a log scale. */
export function padY(extent: Range | null, isLog: boolean): Range {
  if (extent === null) return isLog ? [0.1, 1] : [0, 1];
  const [low, high] = extent;
  if (isLog) {
    const air = Math.max((high / low) ** 0.06, 1.1);
    return [low / air, high * air];
  }
  const span = high - low;
  const air = span > 0 ? span * 0.06 : Math.max(Math.abs(high) * 0.1, 1e-9 + (high === 0 ? 1 : 0));
  return [low - air, high + air];
}

/** An x range that is never empty. */
export function padX(extent: Range | null): Range {
  if (extent === null) return [0, 1];
  const [low, high] = extent;
  return high > low ? extent : [low - 0.5, high + 0.5];
}

/** Index of the entry of a sorted column that is nearest to `x`; −1 for an empty one. */
export function nearestIndex(column: ArrayLike<number>, x: number): number {
  let low = 0;
  let high = column.length - 1;
  if (high < 0) return -1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((column[middle] as number) < x) low = middle + 1;
    else high = middle;
  }
  const before = low - 1;
  return before >= 0 && x - (column[before] as number) <= (column[low] as number) - x ? before : low;
}

export interface HoverRow {
  line: Line;
  index: number;
  x: number;
  /** The drawn value. */
  value: number;
}

/** One row per line that reaches `x` (or ends within `reach` of it), nearest to the pointer first; `distance` measures on the screen. */
export function hoverRows(lines: readonly Line[], x: number, reach: number, distance: (row: HoverRow) => number): HoverRow[] {
  const rows: { row: HoverRow; far: number }[] = [];
  for (const line of lines) {
    const column = line.series.x;
    const index = nearestIndex(column, x);
    const isBeside = index < 0 || x < (column[0] as number) - reach || x > (column[column.length - 1] as number) + reach;
    if (isBeside) continue;
    const at = column[index] as number;
    const row = { line, index, x: at, value: line.y[index] as number };
    const far = distance(row);
    rows.push({ row, far: Number.isNaN(far) ? Infinity : far });
  }
  return rows.sort((a, b) => a.far - b.far).map(({ row }) => row);
}

export interface ChartFacts {
  /** Buckets drawn, points they stand for. */
  shown: number;
  total: number;
  isSampled: boolean;
  /** The first bucket of any line with NaN, +∞ or −∞ in it. */
  firstNonFinite: { range: Range; what: string } | null;
}

export function chartFacts(lines: readonly Line[]): ChartFacts {
  let shown = 0;
  let total = 0;
  let first: ChartFacts["firstNonFinite"] = null;
  for (const { series } of lines) {
    shown += series.n;
    total += series.total;
    for (let i = 0; i < series.n; i += 1) {
      const flags = series.flags[i] as number;
      if (flags === 0) continue;
      const x = series.x[i] as number;
      const isExact = (series.count[i] as number) <= 1 || i === 0;
      const range: Range = [isExact ? x : (series.x[i - 1] as number), x];
      if (first === null || x < first.range[1]) first = { range, what: describeFlags(flags) };
      break;
    }
  }
  return { shown, total, isSampled: shown < total, firstNonFinite: first };
}

/** "NaN", "+∞", "NaN, −∞"… */
export function describeFlags(flags: number): string {
  const names: [number, string][] = [
    [FLAG_NAN, "NaN"],
    [FLAG_POS_INF, "+∞"],
    [FLAG_NEG_INF, "−∞"],
  ];
  return names.filter(([bit]) => (flags & bit) !== 0).map(([, name]) => name).join(", ");
}

export interface Spike {
  index: number;
  /** Above the neighbours, or below. */
  isUpper: boolean;
}

/**
 * Buckets of [start, end) whose extreme leaves the neighbours' band by more than half of that band's height; by three
 * heights at the ends, where a steep curve with one neighbour looks like a spike.
 */
export function findSpikes(min: ArrayLike<number>, max: ArrayLike<number>, start: number, end: number): Spike[] {
  const spikes: Spike[] = [];
  for (let i = start; i < end; i += 1) {
    let low = Infinity;
    let high = -Infinity;
    for (const neighbour of [i - 1, i + 1]) {
      if (neighbour < start || neighbour >= end) continue;
      low = Math.min(low, min[neighbour] as number);
      high = Math.max(high, max[neighbour] as number);
    }
    if (low > high) continue;
    const isEnd = i === start || i === end - 1;
    const reach = (high - low) * (isEnd ? 3 : 0.5);
    if ((max[i] as number) > high + reach) spikes.push({ index: i, isUpper: true });
    if ((min[i] as number) < low - reach) spikes.push({ index: i, isUpper: false });
  }
  return spikes;
}
