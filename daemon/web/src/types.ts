/** What the hub's HTTP API answers (docs/http-api.md). */

export type Scalar = string | number | boolean | null;
export type Json = Scalar | Json[] | { [key: string]: Json };
export type JsonObject = { [key: string]: Json };

export interface Hub {
  version: string;
  store_id: string;
  role: string;
  started_us: number;
  lag_records: number;
  warnings: string[];
}

export interface Project {
  name: string;
  runs: number;
  live: number;
  created_us: number;
  updated_us: number;
}

export interface Column {
  /** Dotted path: "config.lr", "summary.loss", "state". */
  path: string;
  kind: "config" | "summary" | "run";
  type: "number" | "string" | "bool" | "mixed";
  /** How many runs have a value there. */
  runs: number;
}

export type RunState = "running" | "finished" | "failed" | "killed" | "crashed" | "preempted" | "lost contact";

export interface Run {
  project: string;
  run_id: string;
  name: string;
  entity: string;
  state: RunState;
  exit_code: number | null;
  cause: string | null;
  /** Of a failed run, in the answer about one run. */
  traceback: string | null;
  created_us: number;
  updated_us: number;
  ended_us: number | null;
  duration_s: number | null;
  notes: string;
  tags: string[];
  group: string;
  job_type: string;
  user: string;
  host: string;
  attempts: number;
  last_step: number | null;
  rows: number;
  config: JsonObject;
  summary: JsonObject;
  meta: JsonObject;
  lost_records: number;
  version: number;
}

export interface RunsPage {
  runs: Run[];
  next_cursor: string;
  total: number;
}

export interface KeyInfo {
  key: string;
  type: "number" | "other";
  count: number;
  last: Json;
  last_step: number | null;
  min: Json;
  max: Json;
}

/** One `init()` of a run. Steps are those of its own rows. */
export interface Attempt {
  number: number;
  state: RunState;
  exit_code: number | null;
  cause: string | null;
  started_us: number;
  updated_us: number;
  ended_us: number | null;
  host: string | null;
  rows: number;
  first_step: number | null;
  last_step: number | null;
  /** From this step on the run's curve is a later attempt's. */
  superseded_from: number | null;
  /** Of a fork: the run whose rows stand before its own. */
  from_run: string | null;
  from_step: number | null;
}

export interface Writer {
  writer_id: string;
  role: string;
  pid: number | null;
  host: string;
  next_seq: number;
  records: number;
  crc32: string | number;
  losses: { first_seq: number; count: number; reason: string }[];
}

/** [project, run id] */
export type RunRef = readonly [string, string];

export type Stream = "default" | "system";

export interface ChartRequest {
  runs: RunRef[];
  keys: string[];
  buckets: number;
  /** "_step", "_relative" (s since the run's start), "_timestamp" (epoch s) or a metric. */
  x_axis: string;
  start: number | null;
  end: number | null;
  stream: Stream;
  /** Only this attempt's points, those included that a later one superseded. */
  attempt?: number;
}

/** A committed change of one run, pushed by the hub. */
export interface Change {
  project: string;
  run_id: string;
  version: number;
  keys: string[];
  has_more_keys: boolean;
  last: JsonObject;
  fields: string[];
}
