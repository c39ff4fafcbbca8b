/** One chart on the screen: uPlot for axes, cursor and selection, our painter for the lines. */

import "./guard";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { extentX, extentY, hoverRows, padX, padY, type HoverRow, type Line, type Range } from "./chart-model";
import { paintLines, type Frame } from "./chart-paint";
import { formatDuration, formatNumber } from "./format";

export interface ChartScene {
  lines: readonly Line[];
  /** "_step", "_relative", "_timestamp" or a metric. */
  xAxis: string;
  isLog: boolean;
  isDark: boolean;
  /** Zoomed ranges; null = all. */
  xRange: Range | null;
  yRange: Range | null;
  highlighted: string | null;
}

export interface Hover {
  /** CSS pixels from the chart's left and top edge. */
  left: number;
  top: number;
  x: number;
  rows: HoverRow[];
}

export interface ChartEvents {
  onHover(hover: Hover | null): void;
  /** A box was drawn; null = that axis stays as it is. */
  onZoom(x: Range | null, y: Range | null): void;
  onReset(): void;
}

const INK = {
  light: { text: "#566070", grid: "rgba(40,60,90,.10)" },
  dark: { text: "#9aa6b5", grid: "rgba(190,210,240,.11)" },
};
const FONT = '11px system-ui, "Segoe UI", Roboto, sans-serif';
const SNAP_PIXELS = 40;

export class ChartView {
  #plot: uPlot;
  #scene: ChartScene;
  #x: Range;
  #y: Range;
  #isStepping = false;

  constructor(
    private readonly root: HTMLElement,
    private readonly events: ChartEvents,
    private readonly syncKey: string,
    scene: ChartScene,
    private size: { width: number; height: number },
  ) {
    this.#scene = scene;
    [this.#x, this.#y] = this.#ranges();
    this.#plot = this.#makePlot();
  }

  /** Shows another scene; axes of another kind need a new plot, everything else is a repaint. */
  setScene(scene: ChartScene): void {
    const old = this.#scene;
    this.#scene = scene;
    const [x, y] = this.#ranges();
    const isMoved = !sameRange(x, this.#x) || !sameRange(y, this.#y);
    [this.#x, this.#y] = [x, y];
    if (old.isLog !== scene.isLog || old.isDark !== scene.isDark || old.xAxis !== scene.xAxis) {
      this.#plot.destroy();
      this.#plot = this.#makePlot();
    } else if (isMoved) this.#plot.setData(this.#frameData(), true);
    else this.#plot.redraw(false, false);
  }

  resize(size: { width: number; height: number }): void {
    this.size = size;
    this.#plot.setSize(size);
  }

  /** Moves the cursor by a number of buckets of the first line (keyboard). */
  stepCursor(delta: number): void {
    const [low, high] = this.#x;
    const left = this.#plot.cursor.left ?? -1;
    const now = left < 0 ? (low + high) / 2 : this.#plot.posToVal(left, "x");
    const next = Math.min(high, Math.max(low, now + (delta * (high - low)) / 100));
    this.#isStepping = true;
    this.#plot.setCursor({ left: this.#plot.valToPos(next, "x"), top: this.#plot.over.clientHeight / 2 });
    this.#isStepping = false;
  }

  /** The x range that is shown. */
  get xRange(): Range {
    return this.#x;
  }

  destroy(): void {
    this.#plot.destroy();
  }

  #ranges(): [Range, Range] {
    const { lines, xRange, yRange, isLog } = this.#scene;
    const x = xRange ?? padX(extentX(lines));
    const y = yRange ?? padY(extentY(lines, x, isLog), isLog);
    return [x, isLog && y[0] <= 0 ? [Math.min(y[1], 1) / 1e6 || 1e-6, Math.max(y[1], 1e-5)] : y];
  }

  /** uPlot sees the corners of the picture only. */
  #frameData(): uPlot.AlignedData {
    return [[...this.#x], [...this.#y]];
  }

  #makePlot(): uPlot {
    const { isLog, isDark, xAxis } = this.#scene;
    const ink = isDark ? INK.dark : INK.light;
    const axis = { stroke: ink.text, font: FONT, grid: { stroke: ink.grid, width: 1 }, ticks: { stroke: ink.grid, width: 1, size: 4 } };
    const xValues = axisValues(xAxis);
    return new uPlot(
      {
        ...this.size,
        legend: { show: false },
        padding: [10, 10, 0, 0],
        scales: {
          x: { time: xAxis === "_timestamp", range: () => [...this.#x] },
          y: { distr: isLog ? 3 : 1, range: () => [...this.#y] },
        },
        series: [{}, { paths: () => null, points: { show: false } }],
        axes: [
          { ...axis, space: 60, size: 28, ...(xValues ? { values: xValues } : {}) },
          { ...axis, space: 32, size: axisWidth, ...(isLog ? { filter: (_: uPlot, splits: number[]) => splits } : {}), values: isLog ? logLabels : (_, splits) => splits.map(shortNumber) },
        ],
        cursor: {
          y: false,
          points: { show: false },
          drag: { x: true, y: true, uni: 30, dist: 6, setScale: false },
          // The cursor is shared, a selection is not: every chart would zoom to its own reading of it.
          sync: { key: this.syncKey, scales: ["x", null], setSeries: false, filters: { pub: isCursorMove } },
          bind: { dblclick: () => () => (this.events.onReset(), null) },
        },
        hooks: {
          draw: [(plot) => this.#paint(plot)],
          setCursor: [(plot) => this.#hover(plot)],
          setSelect: [(plot) => this.#select(plot)],
        },
      },
      this.#frameData(),
      this.root,
    );
  }

  #paint(plot: uPlot): void {
    paintLines(plot.ctx, this.#frame(plot), this.#scene.lines, this.#scene.highlighted);
  }

  #frame(plot: uPlot): Frame {
    const { left, top, width, height } = plot.bbox;
    const [x0, x1] = this.#x;
    const scale = this.#scene.isLog ? (v: number): number => (v > 0 ? Math.log10(v) : NaN) : (v: number): number => (Number.isFinite(v) ? v : NaN);
    const [y0, y1] = [scale(this.#y[0]), scale(this.#y[1])];
    return {
      box: { left, top, width, height },
      ratio: devicePixelRatio || 1,
      toX: (x) => left + ((x - x0) / (x1 - x0)) * width,
      toY: (y) => top + height - ((scale(y) - y0) / (y1 - y0)) * height,
    };
  }

  #hover(plot: uPlot): void {
    const { left = -10, top = -10 } = plot.cursor;
    // Charts that only follow the section's cursor show its line, not a second tooltip.
    const isFollowing = !this.#isStepping && !this.root.matches(":hover");
    if (left < 0 || isFollowing) return this.events.onHover(null);
    const x = plot.posToVal(left, "x");
    const reach = ((this.#x[1] - this.#x[0]) / Math.max(1, plot.over.clientWidth)) * SNAP_PIXELS;
    const toY = (value: number): number => plot.valToPos(value, "y");
    const rows = hoverRows(this.#scene.lines, x, reach, (row) => Math.abs(toY(row.value) - top));
    this.events.onHover(rows.length > 0 ? { left: left + plot.over.offsetLeft, top: top + plot.over.offsetTop, x, rows } : null);
  }

  #select(plot: uPlot): void {
    const { left, top, width, height } = plot.select;
    if (width < 2 && height < 2) return;
    const box = plot.over;
    const isX = width >= 2 && width < box.clientWidth - 1;
    const isY = height >= 2 && height < box.clientHeight - 1;
    const x: Range | null = isX ? [plot.posToVal(left, "x"), plot.posToVal(left + width, "x")] : null;
    const y: Range | null = isY ? [plot.posToVal(top + height, "y"), plot.posToVal(top, "y")] : null;
    plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    if (x || y) this.events.onZoom(x, y);
  }
}

const isCursorMove = (type: string): boolean => type === "mousemove" || type === "mouseleave";

function sameRange(a: Range, b: Range): boolean {
  return a[0] === b[0] && a[1] === b[1];
}

function axisValues(xAxis: string): ((plot: uPlot, splits: number[]) => string[]) | undefined {
  if (xAxis === "_timestamp") return undefined;
  if (xAxis === "_relative") return (_, splits) => splits.map((v) => (v === 0 ? "0" : v < 0 ? formatNumber(v) : formatDuration(v)));
  return (_, splits) => splits.map(shortNumber);
}

/** Powers of ten carry labels; in less than two decades 2 and 5 do too. */
function logLabels(plot: uPlot, splits: (number | null)[]): string[] {
  const { min = 1, max = 10 } = plot.scales["y"] ?? {};
  const digits = (max ?? 10) / (min ?? 1) < 100 ? [1, 2, 5] : [1];
  return splits.map((value) => {
    if (value === null || value <= 0) return "";
    const digit = value / 10 ** Math.floor(Math.log10(value) + 1e-9);
    return digits.some((wanted) => Math.abs(digit - wanted) < 1e-6) ? shortNumber(value) : "";
  });
}

/** Axis labels: 1,000 → 1k, 2,500,000 → 2.5M. */
export function shortNumber(value: number): string {
  const size = Math.abs(value);
  for (const [unit, name] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]] as const) {
    if (size >= unit && size < 1e12) return `${Number((value / unit).toPrecision(6))}${name}`.replace("-", "−");
  }
  return formatNumber(Number(value.toPrecision(8)));
}

/** Wide enough for the longest label. */
function axisWidth(_: uPlot, values: string[] | null): number {
  const longest = Math.max(3, ...(values ?? []).map((value) => value?.length ?? 0));
  return 14 + longest * 6.2;
}
