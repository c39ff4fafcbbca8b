/** One metric of the drawn runs. */

import { computed, effect, signal, useComputed, useSignal } from "@preact/signals";
import type { Signal } from "@preact/signals";
import type { JSX } from "preact";
import { useEffect, useMemo, useRef } from "preact/hooks";
import { chartFacts, makeLine, type ChartFacts, type Line, type Range } from "../chart-model";
import { ChartView, type ChartScene, type Hover } from "../chart-view";
import { formatNumber } from "../format";
import { isDark } from "../state/prefs";
import type { ChartData, ChartNeed } from "../state/chart-store";
import type { RunRef } from "../types";
import { ChartTooltip, formatX } from "./ChartTooltip";
import type { ChartScope } from "./chart-scope";
import { Icon } from "./icons";

export interface ChartCardProps {
  name: string;
  scope: ChartScope;
  /** Cursor and x zoom are shared by the charts of a section. */
  syncKey: string;
  xRange: Signal<Range | null>;
  height: number;
  onExpand?: () => void;
  isLarge?: boolean;
}

/** About one bucket per 2 pixels, in steps, so that charts of nearly one width share a request. */
function bucketsFor(width: number, runs: number): number {
  const perBucket = runs > 30 ? 4 : 2;
  return Math.min(800, Math.max(100, Math.round(width / perBucket / 50) * 50));
}

export function ChartCard(props: ChartCardProps): JSX.Element {
  const { name, scope, xRange, isLarge } = props;
  const plot = useRef<HTMLDivElement>(null);
  const model = useMemo(() => new CardModel(name, scope, xRange), [name, scope, xRange]);
  const view = useRef<ChartView | null>(null);
  const hover = useSignal<Hover | null>(null);

  useEffect(() => {
    const root = plot.current as HTMLDivElement;
    const end = model.show(root, props.syncKey, props.height, hover, view);
    return () => end();
  }, [model, props.syncKey, props.height]);

  const facts = useComputed(() => chartFacts(model.lines.value));
  const isEmpty = model.isAnswered.value && model.lines.value.length === 0;
  const isZoomed = xRange.value !== null || model.yRange.value !== null;
  return (
    <figure class={isLarge ? "card chart large" : "card chart"} data-key={name} data-state={model.isAnswered.value ? "ready" : "loading"}>
      <figcaption>
        <span class="chart-title" title={name}>
          {name}
        </span>
        {isZoomed && (
          <button type="button" class="quiet" aria-label={`Reset the zoom of ${name}`} title="Reset zoom (double-click)" onClick={() => model.reset()}>
            <Icon name="reset" />
          </button>
        )}
        {props.onExpand && (
          <button type="button" class="quiet" aria-label={`Enlarge ${name}`} title="Enlarge" onClick={props.onExpand}>
            <Icon name="expand" />
          </button>
        )}
      </figcaption>
      <div
        ref={plot}
        class="plot"
        role="img"
        tabIndex={0}
        aria-label={describe(name, model.lines.value)}
        style={{ height: `${props.height}px` }}
        onKeyDown={(event) => onKey(event, view.current, model, props.onExpand)}
        onMouseLeave={() => (scope.highlighted.value = null)}
      >
        {hover.value && <ChartTooltip hover={hover.value} xAxis={scope.view.xAxis.value} width={plot.current?.clientWidth ?? 0} />}
        {isEmpty && <p class="chart-empty">No points{isZoomed ? " in this range" : ""}</p>}
        {!model.isAnswered.value && !model.error.value && <p class="chart-empty">Loading…</p>}
      </div>
      <ChartFoot facts={facts.value} error={model.error.value} xAxis={scope.view.xAxis.value} isLog={scope.view.isLog.value} lines={model.lines.value} onZoom={(range) => (xRange.value = range)} />
      {isLarge && <ValuesTable lines={model.lines.value} />}
    </figure>
  );
}

function ChartFoot(props: { facts: ChartFacts; error: string | null; xAxis: string; isLog: boolean; lines: readonly Line[]; onZoom: (range: Range) => void }): JSX.Element {
  const { facts, error } = props;
  const isBelowLog = props.isLog && props.lines.some(({ series }) => series.min.some((value) => value <= 0));
  return (
    <div class="chart-foot">
      {error !== null && <span class="bad">{error}</span>}
      {error === null && facts.total > 0 && (
        <span title={facts.isSampled ? "Every bucket keeps its minimum and maximum: no spike is hidden." : "Every logged point is drawn."}>
          {facts.isSampled ? `${formatNumber(facts.shown)} buckets of ${formatNumber(facts.total)} points` : `${formatNumber(facts.total)} points, all shown`}
        </span>
      )}
      {isBelowLog && <span class="warn">values ≤ 0 are not on a log axis</span>}
      {facts.firstNonFinite && <NonFinite {...facts.firstNonFinite} xAxis={props.xAxis} onZoom={props.onZoom} />}
    </div>
  );
}

/** Where the first NaN or infinity is; inside a bucket, a way to look closer. */
function NonFinite(props: { range: Range; what: string; xAxis: string; onZoom: (range: Range) => void }): JSX.Element {
  const { range, what } = props;
  if (range[0] === range[1]) {
    return (
      <span class="warn">
        {what} at {formatX(props.xAxis, range[0])}
      </span>
    );
  }
  return (
    <button type="button" class="link warn" title="Zoom in on it" onClick={() => props.onZoom(range)}>
      {what} before {formatX(props.xAxis, range[1])}
    </button>
  );
}

/** The same facts as the picture, for those who cannot or do not want to see it. */
function ValuesTable({ lines }: { lines: readonly Line[] }): JSX.Element {
  const extreme = (values: Float64Array, pick: (a: number, b: number) => number): number =>
    values.reduce((best, value) => (Number.isNaN(value) ? best : Number.isNaN(best) ? value : pick(best, value)), NaN);
  return (
    <div class="values">
      <table>
        <thead>
          <tr>
            <th scope="col">run</th>
            <th scope="col">last</th>
            <th scope="col">minimum</th>
            <th scope="col">maximum</th>
            <th scope="col">points</th>
          </tr>
        </thead>
        <tbody>
          {lines.map(({ runId, name, colour, series }) => (
            <tr key={runId}>
              <th scope="row">
                <span class="swatch" style={{ background: colour }} /> {name}
              </th>
              <td>{formatNumber(series.last[series.n - 1] as number)}</td>
              <td>{formatNumber(extreme(series.min, Math.min))}</td>
              <td>{formatNumber(extreme(series.max, Math.max))}</td>
              <td>{formatNumber(series.total)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function describe(name: string, lines: readonly Line[]): string {
  if (lines.length === 0) return `${name}: no points`;
  const values = lines.slice(0, 5).map((line) => `${line.name} ${formatNumber(line.series.last[line.series.n - 1] as number)}`);
  const more = lines.length > 5 ? ` and ${lines.length - 5} more` : "";
  return `${name}, ${lines.length} run${lines.length === 1 ? "" : "s"}; last values: ${values.join(", ")}${more}. Arrow keys move the cursor, plus and minus zoom, 0 resets.`;
}

function onKey(event: KeyboardEvent, view: ChartView | null, model: CardModel, onExpand?: () => void): void {
  if (view === null || event.ctrlKey || event.metaKey || event.altKey) return;
  const actions: Record<string, () => void> = {
    ArrowLeft: () => view.stepCursor(event.shiftKey ? -10 : -1),
    ArrowRight: () => view.stepCursor(event.shiftKey ? 10 : 1),
    "+": () => model.zoomBy(view.xRange, 0.5),
    "=": () => model.zoomBy(view.xRange, 0.5),
    "-": () => model.zoomBy(view.xRange, 2),
    "0": () => model.reset(),
    Enter: () => onExpand?.(),
  };
  const action = actions[event.key];
  if (action === undefined || event.target !== event.currentTarget) return;
  event.preventDefault();
  action();
}

/** A card's data and choices; lives as long as the card. */
class CardModel {
  readonly data = signal<ChartData>(new Map());
  readonly isAnswered = signal(false);
  readonly error = signal<string | null>(null);
  readonly yRange = signal<Range | null>(null);
  readonly width = signal(0);

  /** The runs that have this key. */
  readonly runs = computed<RunRef[]>(() => {
    const having = this.scope.index.keys.value.get(this.name);
    return this.scope.runs.value.filter((run) => having?.has(run.run_id)).map((run): RunRef => [run.project, run.run_id]);
  });

  readonly lines = computed<Line[]>(() => {
    const weight = this.scope.view.smoothing.value;
    const dark = isDark.value;
    const lines: Line[] = [];
    for (const run of this.scope.runs.value) {
      const series = this.data.value.get(run.run_id);
      if (series === undefined) continue;
      const style = this.scope.style(run.run_id);
      lines.push(makeLine(series, { name: run.name || run.run_id, colour: dark ? style.dark : style.light, dash: style.dash }, weight));
    }
    return lines;
  });

  constructor(
    readonly name: string,
    readonly scope: ChartScope,
    readonly xRange: Signal<Range | null>,
  ) {}

  reset(): void {
    this.xRange.value = null;
    this.yRange.value = null;
  }

  zoomBy([low, high]: Range, factor: number): void {
    const middle = (low + high) / 2;
    const half = ((high - low) / 2) * factor;
    this.xRange.value = [middle - half, middle + half];
  }

  /** Puts the chart into `root` and keeps it fresh; the returned function takes it away. */
  show(root: HTMLElement, syncKey: string, height: number, hover: Signal<Hover | null>, out: { current: ChartView | null }): () => void {
    this.width.value = root.clientWidth;
    const handle = this.scope.store.mount(this.#need(), {
      onData: (data) => {
        this.data.value = data;
        if (data.size > 0) this.#answered();
      },
      onAnswer: () => this.#answered(),
      onError: (message) => (this.error.value = message),
    });
    const view = new ChartView(root, this.#events(hover), syncKey, this.#scene(), { width: root.clientWidth, height });
    out.current = view;
    let frame = 0;
    const endNeed = effect(() => handle.update(this.#need()));
    const endScene = effect(() => {
      const scene = this.#scene();
      cancelAnimationFrame(frame);
      frame = requestAnimationFrame(() => view.setScene(scene));
    });
    const resizes = new ResizeObserver(() => {
      if (root.clientWidth === 0 || root.clientWidth === this.width.peek()) return;
      this.width.value = root.clientWidth;
      view.resize({ width: root.clientWidth, height });
    });
    resizes.observe(root);
    return () => {
      resizes.disconnect();
      cancelAnimationFrame(frame);
      endScene();
      endNeed();
      handle.unmount();
      view.destroy();
      out.current = null;
    };
  }

  #answered(): void {
    this.isAnswered.value = true;
    this.error.value = null;
  }

  #events(hover: Signal<Hover | null>): ConstructorParameters<typeof ChartView>[1] {
    return {
      onHover: (next) => {
        if (next === null && hover.peek() === null) return;
        hover.value = next;
        const nearest = next?.rows[0]?.line.runId ?? null;
        if (next !== null && this.lines.peek().length > 1) this.scope.highlighted.value = nearest;
      },
      onZoom: (x, y) => {
        if (x) this.xRange.value = x;
        if (y) this.yRange.value = y;
      },
      onReset: () => this.reset(),
    };
  }

  #need(): ChartNeed {
    return {
      key: this.name,
      runs: this.runs.value,
      xAxis: this.scope.view.xAxis.value,
      range: this.xRange.value,
      buckets: bucketsFor(this.width.value, this.runs.value.length),
      stream: this.scope.stream,
    };
  }

  #scene(): ChartScene {
    return {
      lines: this.lines.value,
      xAxis: this.scope.view.xAxis.value,
      isLog: this.scope.view.isLog.value,
      isDark: isDark.value,
      xRange: this.xRange.value,
      yRange: this.yRange.value,
      highlighted: this.scope.highlighted.value,
    };
  }
}
