/**
 * Draws lines, their min/max envelope and the marks of non-finite values on a canvas.
 *
 * uPlot keeps the axes, scales and the cursor; it wants all series on one x column, which many runs with their own
 * steps do not have (joining 100 of them costs 0.3 s), so the lines are drawn here, each over its own columns.
 */

import { FLAG_NAN, FLAG_NEG_INF, FLAG_POS_INF } from "./chart-data";
import { findSpikes, type Line } from "./chart-model";

export interface Box {
  left: number;
  top: number;
  width: number;
  height: number;
}

export interface Frame {
  box: Box;
  /** Device pixels per CSS pixel. */
  ratio: number;
  /** Value → canvas pixel; NaN for what the scale cannot show. */
  toX(x: number): number;
  toY(y: number): number;
}

/** Draws all lines; the highlighted one last and stronger, the others fainter. */
export function paintLines(context: CanvasRenderingContext2D, frame: Frame, lines: readonly Line[], highlighted: string | null): void {
  context.save();
  const { left, top, width, height } = frame.box;
  context.beginPath();
  context.rect(left, top, width, height);
  context.clip();
  context.lineJoin = "round";
  const isOne = highlighted !== null && lines.some((line) => line.runId === highlighted);
  const others = isOne ? lines.filter((line) => line.runId !== highlighted) : lines;
  const envelope = lines.length > 3 ? 0.55 : 1;
  for (const line of others) paintLine(context, frame, line, isOne ? 0.25 : 1, envelope, 1.5);
  for (const line of lines) if (isOne && line.runId === highlighted) paintLine(context, frame, line, 1, 1, 2.5);
  context.restore();
}

function paintLine(context: CanvasRenderingContext2D, frame: Frame, line: Line, strength: number, envelope: number, width: number): void {
  context.strokeStyle = line.colour;
  context.fillStyle = line.colour;
  context.setLineDash([]);
  paintEnvelope(context, frame, line, strength * envelope);
  if (line.isSmoothed) {
    context.globalAlpha = 0.25 * strength;
    context.lineWidth = frame.ratio;
    tracePath(context, frame, line.series.x, line.series.last);
    context.stroke();
  }
  context.globalAlpha = strength;
  context.lineWidth = width * frame.ratio;
  context.setLineDash(line.dash.map((length) => length * frame.ratio));
  tracePath(context, frame, line.series.x, line.y);
  context.stroke();
  context.setLineDash([]);
  paintDots(context, frame, line);
  paintMarks(context, frame, line);
  context.globalAlpha = 1;
}

/** A polyline that breaks where a value cannot be shown. */
function tracePath(context: CanvasRenderingContext2D, frame: Frame, x: Float64Array, y: Float64Array): void {
  context.beginPath();
  let isDrawing = false;
  for (let i = 0; i < x.length; i += 1) {
    const px = frame.toX(x[i] as number);
    const py = frame.toY(y[i] as number);
    if (Number.isNaN(px + py)) isDrawing = false;
    else if (isDrawing) context.lineTo(px, py);
    else {
      context.moveTo(px, py);
      isDrawing = true;
    }
  }
}

/**
 * The band between each bucket's minimum and maximum, with its edges drawn where the extremes stand: a spike of one
 * step is at least one stroked needle, however many points its bucket has.
 */
function paintEnvelope(context: CanvasRenderingContext2D, frame: Frame, line: Line, strength: number): void {
  const { series } = line;
  if (series.total <= series.n) return;
  let start = 0;
  while (start < series.n) {
    while (start < series.n && Number.isNaN(series.min[start] as number)) start += 1;
    let end = start;
    while (end < series.n && !Number.isNaN(series.min[end] as number)) end += 1;
    if (end > start) paintBand(context, frame, line, start, end, strength);
    start = end;
  }
}

function paintBand(context: CanvasRenderingContext2D, frame: Frame, line: Line, start: number, end: number, strength: number): void {
  const { series } = line;
  const floor = frame.box.top + frame.box.height + 2;
  const lowY = (i: number): number => {
    const y = frame.toY(series.min[i] as number);
    return Number.isNaN(y) ? floor : y;
  };
  const highY = (i: number): number => {
    const y = frame.toY(series.max[i] as number);
    return Number.isNaN(y) ? floor : y;
  };
  const upper = new Path2D();
  const lower = new Path2D();
  const band = new Path2D();
  for (let i = start; i < end; i += 1) {
    const x = frame.toX(series.max_x[i] as number);
    const y = highY(i);
    if (i === start) {
      upper.moveTo(x, y);
      band.moveTo(x, y);
    } else {
      upper.lineTo(x, y);
      band.lineTo(x, y);
    }
  }
  for (let i = end - 1; i >= start; i -= 1) {
    const x = frame.toX(series.min_x[i] as number);
    const y = lowY(i);
    if (i === end - 1) lower.moveTo(x, y);
    else lower.lineTo(x, y);
    band.lineTo(x, y);
  }
  band.closePath();
  context.globalAlpha = 0.13 * strength;
  context.fill(band);
  context.globalAlpha = 0.4 * strength;
  context.lineWidth = frame.ratio;
  context.stroke(upper);
  context.stroke(lower);
  paintNeedles(context, frame, line, start, end, strength);
}

/** Spikes: where a bucket's extreme stands far outside of its neighbours' band it is drawn as strongly as the line. */
function paintNeedles(context: CanvasRenderingContext2D, frame: Frame, line: Line, start: number, end: number, strength: number): void {
  const { series } = line;
  context.globalAlpha = Math.min(1, strength * 1.8);
  context.lineWidth = 1.25 * frame.ratio;
  context.beginPath();
  for (const { index, isUpper } of findSpikes(series.min, series.max, start, end)) {
    const x = frame.toX((isUpper ? series.max_x : series.min_x)[index] as number);
    const from = frame.toY((isUpper ? series.min : series.max)[index] as number);
    const to = frame.toY((isUpper ? series.max : series.min)[index] as number);
    if (Number.isNaN(x + from + to)) continue;
    context.moveTo(x, from);
    context.lineTo(x, to);
  }
  context.stroke();
}

/** Few points are dots too: one point alone would have no line. */
function paintDots(context: CanvasRenderingContext2D, frame: Frame, line: Line): void {
  const { n, x } = line.series;
  if (n > 40) return;
  context.beginPath();
  for (let i = 0; i < n; i += 1) {
    const px = frame.toX(x[i] as number);
    const py = frame.toY(line.y[i] as number);
    if (Number.isNaN(px + py)) continue;
    context.moveTo(px + 2.2 * frame.ratio, py);
    context.arc(px, py, 2.2 * frame.ratio, 0, 2 * Math.PI);
  }
  context.fill();
}

/** ▲ at the top for +∞, ▼ at the bottom for −∞, ✕ at the bottom for NaN. */
function paintMarks(context: CanvasRenderingContext2D, frame: Frame, line: Line): void {
  const { box, ratio } = frame;
  const size = 4.5 * ratio;
  const top = box.top + size + ratio;
  const bottom = box.top + box.height - size - ratio;
  context.lineWidth = 2 * ratio;
  for (let i = 0; i < line.series.n; i += 1) {
    const flags = line.series.flags[i] as number;
    if (flags === 0) continue;
    const x = frame.toX(line.series.x[i] as number);
    if (flags & FLAG_POS_INF) fillTriangle(context, x, top, size, -1);
    if (flags & FLAG_NEG_INF) fillTriangle(context, x, bottom, size, 1);
    if (flags & FLAG_NAN) {
      const half = size * 0.8;
      context.beginPath();
      context.moveTo(x - half, bottom - half);
      context.lineTo(x + half, bottom + half);
      context.moveTo(x + half, bottom - half);
      context.lineTo(x - half, bottom + half);
      context.stroke();
    }
  }
}

function fillTriangle(context: CanvasRenderingContext2D, x: number, y: number, size: number, direction: 1 | -1): void {
  context.beginPath();
  context.moveTo(x, y + size * direction);
  context.lineTo(x - size, y - size * direction);
  context.lineTo(x + size, y - size * direction);
  context.closePath();
  context.fill();
}
