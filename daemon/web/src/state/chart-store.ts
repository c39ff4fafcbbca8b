/**
 * Data of the charts on the screen: gathers what they need into few requests, and asks again for exactly what changed.
 *
 * A mounted chart is a *need*: a key of some runs over a range. Needs with the same runs and range travel together.
 * A pushed change makes the affected (chart, run) pairs dirty; dirty pairs are asked for at most four times a second.
 */

import type { ChartAnswer, Series } from "../chart-data";
import type { ChartRequest, RunRef, Stream } from "../types";
import { Throttle } from "./throttle";

export interface ChartNeed {
  key: string;
  runs: readonly RunRef[];
  xAxis: string;
  range: readonly [number, number] | null;
  buckets: number;
  stream: Stream;
}

/** Run id → series; runs without points are absent. */
export type ChartData = ReadonlyMap<string, Series>;

export interface ChartWatcher {
  onData(data: ChartData): void;
  /** The hub has answered: what is missing now has no points. */
  onAnswer(): void;
  onError(message: string): void;
}

/** Buckets that one answer may carry (9 columns of 8 bytes each: 14 MB). */
const MAX_BUCKETS_PER_REQUEST = 200_000;
const MAX_KEYS_PER_REQUEST = 40;
const CACHED_CHARTS = 300;

class Mounted {
  readonly dirty = new Set<string>();
  data = new Map<string, Series>();
  /** Number of the newest request whose answer stands in `data`, per run. */
  readonly answered = new Map<string, number>();

  constructor(
    public need: ChartNeed,
    readonly watcher: ChartWatcher,
  ) {}
}

export class ChartStore {
  readonly #mounted = new Set<Mounted>();
  readonly #cache = new Map<string, Map<string, Series>>();
  readonly #throttle: Throttle;
  #requests = 0;

  constructor(
    private readonly ask: (request: ChartRequest) => Promise<ChartAnswer>,
    private readonly onPainted: () => void = () => {},
    intervalMs = 250,
  ) {
    this.#throttle = new Throttle(() => this.#askForDirty(), intervalMs);
  }

  /** Adds a chart; cached data is handed over at once, fresh data follows. */
  mount(need: ChartNeed, watcher: ChartWatcher): { update(need: ChartNeed): void; unmount(): void } {
    const chart = new Mounted(need, watcher);
    this.#mounted.add(chart);
    this.#restart(chart);
    return {
      update: (next) => {
        if (needId(next) === needId(chart.need) && sameRuns(next.runs, chart.need.runs)) return;
        const hasNewGrid = needId(next) !== needId(chart.need);
        chart.need = next;
        if (hasNewGrid) this.#restart(chart);
        else this.#changeRuns(chart);
      },
      unmount: () => {
        this.#mounted.delete(chart);
        this.#remember(chart);
      },
    };
  }

  /** A run got points: every mounted chart that shows it (and one of the keys) asks again for that run. */
  markChanged(project: string, runId: string, keys: readonly string[], hasMoreKeys: boolean): void {
    const changed = new Set(keys);
    for (const chart of this.#mounted) {
      const isShown = chart.need.runs.some(([p, r]) => p === project && r === runId);
      if (isShown && (hasMoreKeys || changed.has(chart.need.key))) chart.dirty.add(runId);
    }
    this.#throttle.request();
  }

  /** Asks again for everything on the screen. */
  resync(): void {
    this.#cache.clear();
    for (const chart of this.#mounted) for (const [, run] of chart.need.runs) chart.dirty.add(run);
    this.#throttle.request();
  }

  stop(): void {
    this.#throttle.stop();
    this.#mounted.clear();
  }

  #restart(chart: Mounted): void {
    const cached = this.#cache.get(needId(chart.need));
    if (cached) {
      chart.data = new Map(cached);
      this.#deliver(chart);
    }
    // Until the answer comes the old lines stay: a zoom shows them stretched instead of nothing.
    this.#changeRuns(chart, true);
  }

  #changeRuns(chart: Mounted, isAllDirty = false): void {
    const wanted = new Set(chart.need.runs.map(([, run]) => run));
    for (const run of chart.data.keys()) if (!wanted.has(run)) chart.data.delete(run);
    for (const run of chart.dirty) if (!wanted.has(run)) chart.dirty.delete(run);
    for (const run of wanted) if (isAllDirty || !chart.data.has(run)) chart.dirty.add(run);
    this.#deliver(chart);
    this.#throttle.request();
  }

  #deliver(chart: Mounted): void {
    const data = new Map<string, Series>();
    for (const [, run] of chart.need.runs) {
      const series = chart.data.get(run);
      if (series) data.set(run, series);
    }
    chart.watcher.onData(data);
  }

  #remember(chart: Mounted): void {
    const id = needId(chart.need);
    this.#cache.delete(id);
    this.#cache.set(id, chart.data);
    const oldest = this.#cache.keys().next().value;
    if (this.#cache.size > CACHED_CHARTS && oldest !== undefined) this.#cache.delete(oldest);
  }

  async #askForDirty(): Promise<void> {
    const charts = [...this.#mounted].filter((chart) => chart.dirty.size > 0);
    const hadData = charts.length > 0;
    await Promise.all(planRequests(charts).map((batch) => this.#askFor(batch)));
    if (hadData) this.onPainted();
  }

  async #askFor(batch: Batch): Promise<void> {
    this.#requests += 1;
    const number = this.#requests;
    const asked = batch.charts.map((chart) => ({ chart, id: needId(chart.need) }));
    const runs = batch.request.runs.map(([, run]) => run);
    for (const { chart } of asked) for (const run of runs) chart.dirty.delete(run);
    try {
      const found = indexSeries((await this.ask(batch.request)).series);
      for (const { chart, id } of asked) {
        if (this.#mounted.has(chart) && needId(chart.need) === id) this.#apply(chart, number, runs, found);
      }
    } catch (error) {
      for (const { chart, id } of asked) {
        if (this.#mounted.has(chart) && needId(chart.need) === id) chart.watcher.onError((error as Error).message);
      }
    }
  }

  #apply(chart: Mounted, number: number, runs: readonly string[], found: ReadonlyMap<string, Series>): void {
    for (const run of runs) {
      // An answer that was overtaken by a later question's answer is old news.
      if ((chart.answered.get(run) ?? 0) > number) continue;
      chart.answered.set(run, number);
      const series = found.get(seriesId(run, chart.need.key));
      if (series && series.n > 0) chart.data.set(run, series);
      else chart.data.delete(run);
    }
    this.#deliver(chart);
    chart.watcher.onAnswer();
  }
}

interface Batch {
  request: ChartRequest;
  charts: Mounted[];
}

/** Charts with the same dirty runs and grid in one request, cut where the answer would grow too large. */
function planRequests(charts: readonly Mounted[]): Batch[] {
  const groups = new Map<string, { runs: RunRef[]; charts: Mounted[] }>();
  for (const chart of charts) {
    const runs = chart.need.runs.filter(([, run]) => chart.dirty.has(run));
    if (runs.length === 0) continue;
    const { xAxis, range, buckets, stream } = chart.need;
    const id = JSON.stringify([xAxis, range, buckets, stream, runs]);
    const group = groups.get(id) ?? { runs, charts: [] };
    group.charts.push(chart);
    groups.set(id, group);
  }
  return [...groups.values()].flatMap((group) => cutGroup(group.runs, group.charts));
}

function cutGroup(runs: RunRef[], charts: Mounted[]): Batch[] {
  const need = (charts[0] as Mounted).need;
  const fit = Math.floor(MAX_BUCKETS_PER_REQUEST / (runs.length * need.buckets));
  const size = Math.max(1, Math.min(MAX_KEYS_PER_REQUEST, fit));
  const batches: Batch[] = [];
  for (let start = 0; start < charts.length; start += size) {
    const part = charts.slice(start, start + size);
    batches.push({
      charts: part,
      request: {
        runs,
        keys: [...new Set(part.map((chart) => chart.need.key))],
        buckets: need.buckets,
        x_axis: need.xAxis,
        start: need.range?.[0] ?? null,
        end: need.range?.[1] ?? null,
        stream: need.stream,
      },
    });
  }
  return batches;
}

const seriesId = (run: string, key: string): string => `${run}\n${key}`;

function indexSeries(series: readonly Series[]): Map<string, Series> {
  return new Map(series.map((entry) => [seriesId(entry.runId, entry.key), entry]));
}

/** Everything of a need but its runs: data of another grid cannot be mixed with it. */
function needId(need: ChartNeed): string {
  return JSON.stringify([need.key, need.xAxis, need.range, need.buckets, need.stream]);
}

function sameRuns(a: readonly RunRef[], b: readonly RunRef[]): boolean {
  return a.length === b.length && a.every((run, index) => run[0] === b[index]?.[0] && run[1] === b[index]?.[1]);
}
