/** Series and answers as the hub makes them. */

import { COLUMNS, type ColumnName, type Series } from "../src/chart-data";
import type { Run } from "../src/types";

export function makeSeries(project: string, runId: string, key: string, x: number[], last: number[], other: Partial<Series> = {}): Series {
  const floats = (values: number[]): Float64Array => Float64Array.from(values);
  const finite = last.map((value) => (Number.isFinite(value) ? value : NaN));
  return {
    project,
    runId,
    key,
    n: x.length,
    total: x.length,
    x: floats(x),
    last: floats(last),
    min: floats(finite),
    max: floats(finite),
    mean: floats(finite),
    min_x: floats(x),
    max_x: floats(x),
    count: floats(x.map(() => 1)),
    flags: floats(last.map((value) => (Number.isNaN(value) ? 1 : value === Infinity ? 2 : value === -Infinity ? 4 : 0))),
    ...other,
  };
}

export function encodeCharts(series: Series[], version: Record<string, number> = {}, columns: readonly ColumnName[] = COLUMNS): ArrayBuffer {
  let offset = 0;
  const heads = series.map(({ project, runId, key, n, total }) => {
    const head = { run: [project, runId], key, n, total, columns, offset };
    offset += n * 8 * columns.length;
    return head;
  });
  const header = new TextEncoder().encode(JSON.stringify({ series: heads, version }));
  const start = Math.ceil((4 + header.length) / 8) * 8;
  const buffer = new ArrayBuffer(start + offset);
  const view = new DataView(buffer);
  view.setUint32(0, header.length, true);
  new Uint8Array(buffer).set(header, 4);
  let at = start;
  for (const entry of series) {
    for (const column of columns) {
      for (const value of entry[column]) {
        view.setFloat64(at, value, true);
        at += 8;
      }
    }
  }
  return buffer;
}

export function makeRun(id: string, other: Partial<Run> = {}): Run {
  return {
    project: "p",
    run_id: id,
    name: `name-${id}`,
    entity: "",
    state: "finished",
    exit_code: 0,
    cause: null,
    traceback: null,
    created_us: 0,
    updated_us: 0,
    ended_us: null,
    duration_s: 1,
    notes: "",
    tags: [],
    group: "",
    job_type: "",
    user: "",
    host: "",
    attempts: 1,
    last_step: null,
    rows: 0,
    config: {},
    summary: {},
    meta: {},
    lost_records: 0,
    version: 1,
    ...other,
  };
}

/** Lets promises and zero timers run until `isDone`, at most a second. */
export async function until(isDone: () => boolean): Promise<void> {
  for (let turn = 0; turn < 200 && !isDone(); turn += 1) await new Promise((resolve) => setTimeout(resolve, 5));
  if (!isDone()) throw new Error("it did not happen within a second");
}
