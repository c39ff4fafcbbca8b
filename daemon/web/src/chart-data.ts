/**
 * The binary answer of `POST /api/v1/charts`.
 *
 *     u32 n | n bytes of JSON | zeros up to a multiple of 8 | float64 columns, little-endian
 *
 * The columns are read in place: a series holds views into the answer's buffer, nothing is copied.
 */

export const COLUMNS = ["x", "last", "min", "max", "mean", "min_x", "max_x", "count", "flags"] as const;
export type ColumnName = (typeof COLUMNS)[number];

/** Bits of the `flags` column. */
export const FLAG_NAN = 1;
export const FLAG_POS_INF = 2;
export const FLAG_NEG_INF = 4;

/** One series over a grid of buckets; every column has `n` entries. */
export interface Series {
  project: string;
  runId: string;
  key: string;
  n: number;
  /** Points of the series in the asked range, before sampling. */
  total: number;
  /** x of the bucket's last point. */
  x: Float64Array;
  last: Float64Array;
  /** Over the finite points; NaN when a bucket has none. */
  min: Float64Array;
  max: Float64Array;
  mean: Float64Array;
  min_x: Float64Array;
  max_x: Float64Array;
  count: Float64Array;
  flags: Float64Array;
}

export interface ChartAnswer {
  series: Series[];
  /** "project/run" → version of the run that the answer contains. */
  version: Record<string, number>;
}

/** The answer is not in the documented form. */
export class ChartFormatError extends Error {}

interface HeaderSeries {
  run: [string, string];
  key: string;
  n: number;
  total: number;
  columns: string[];
  offset: number;
}

interface Header {
  series: HeaderSeries[];
  version?: Record<string, number>;
}

const IS_LITTLE_ENDIAN = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;

/** Decodes an answer; throws ChartFormatError for one that is cut short or malformed. */
export function decodeCharts(buffer: ArrayBuffer): ChartAnswer {
  if (buffer.byteLength < 4) throw new ChartFormatError(`the chart answer has ${buffer.byteLength} bytes, fewer than 4`);
  const headerBytes = new DataView(buffer).getUint32(0, true);
  const dataStart = Math.ceil((4 + headerBytes) / 8) * 8;
  if (4 + headerBytes > buffer.byteLength) throw new ChartFormatError("the chart answer ends inside its header");
  const header = parseHeader(new Uint8Array(buffer, 4, headerBytes));
  return {
    series: header.series.map((entry) => decodeSeries(buffer, dataStart, entry)),
    version: header.version ?? {},
  };
}

function parseHeader(bytes: Uint8Array): Header {
  let header: unknown;
  try {
    header = JSON.parse(new TextDecoder().decode(bytes));
  } catch (error) {
    throw new ChartFormatError(`the chart answer's header is not JSON: ${String(error)}`);
  }
  if (typeof header !== "object" || header === null || !Array.isArray((header as Header).series)) {
    throw new ChartFormatError("the chart answer's header has no list of series");
  }
  return header as Header;
}

function decodeSeries(buffer: ArrayBuffer, dataStart: number, entry: HeaderSeries): Series {
  const column = (name: ColumnName): Float64Array => {
    const position = entry.columns.indexOf(name);
    if (position < 0) throw new ChartFormatError(`the series "${entry.key}" has no column "${name}"`);
    const start = dataStart + entry.offset + position * entry.n * 8;
    if (start + entry.n * 8 > buffer.byteLength) throw new ChartFormatError(`the chart answer ends inside "${entry.key}"`);
    return readFloats(buffer, start, entry.n);
  };
  const [project, runId] = entry.run;
  const series = { project, runId, key: entry.key, n: entry.n, total: entry.total } as Series;
  for (const name of COLUMNS) series[name] = column(name);
  return series;
}

function readFloats(buffer: ArrayBuffer, start: number, n: number): Float64Array {
  if (IS_LITTLE_ENDIAN && start % 8 === 0) return new Float64Array(buffer, start, n);
  const view = new DataView(buffer, start, n * 8);
  return Float64Array.from({ length: n }, (_, index) => view.getFloat64(index * 8, true));
}
