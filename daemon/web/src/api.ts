/** The hub's HTTP API, typed. Knows nothing of pages or state. */

import { decodeCharts, type ChartAnswer } from "./chart-data";
import type { Attempt, ChartRequest, Column, Hub, KeyInfo, Project, Run, RunsPage, Stream, Writer } from "./types";

export const KEY_NAME = "trackd_key";

/** The hub answered with an error, or could not be reached (status 0). */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string,
    /** Offset in a `where` text where the hub stopped understanding it. */
    readonly position: number | null = null,
  ) {
    super(message);
  }
}

let unauthorized: () => void = () => {};

/** Called whenever the hub answers 401. */
export function onUnauthorized(callback: () => void): void {
  unauthorized = callback;
}

/** The header that proves that the caller is this origin's page and not another server on the same host. */
export function authHeaders(): Record<string, string> {
  const key = localStorage.getItem(KEY_NAME);
  return key ? { "X-Trackd-Key": key } : {};
}

type Query = Record<string, string | number | string[] | null | undefined>;

export function buildUrl(path: string, query: Query = {}): string {
  const params = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value === null || value === undefined || value === "") continue;
    if (Array.isArray(value)) for (const item of value) params.append(name, item);
    else params.append(name, String(value));
  }
  const text = params.toString();
  return text ? `${path}?${text}` : path;
}

const segment = encodeURIComponent;

/** Sends a request; throws ApiError with the hub's own words. */
export async function request(url: string, init: RequestInit = {}): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(url, {
      credentials: "same-origin",
      cache: "no-store",
      ...init,
      headers: { ...authHeaders(), ...(init.headers as Record<string, string> | undefined) },
    });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new ApiError(0, "The hub does not answer. It may be restarting; is `trackd status` fine?");
  }
  if (response.status === 401) unauthorized();
  if (!response.ok) throw await errorOf(response);
  return response;
}

async function errorOf(response: Response): Promise<ApiError> {
  let message = `The hub answered ${response.status}.`;
  let position: number | null = null;
  try {
    const body: unknown = await response.json();
    const found = describeError(body);
    message = found.message ?? message;
    position = found.position;
  } catch {
    // Not JSON: the status says enough.
  }
  return new ApiError(response.status, message, position);
}

/** The message and position in an error answer, wherever its nesting keeps them. */
export function describeError(body: unknown): { message: string | null; position: number | null } {
  let message: string | null = null;
  let position: number | null = null;
  const visit = (value: unknown): void => {
    if (typeof value === "string") message ??= value;
    else if (Array.isArray(value)) value.forEach(visit);
    else if (typeof value === "object" && value !== null) {
      const fields = value as Record<string, unknown>;
      if (typeof fields["position"] === "number") position ??= fields["position"];
      for (const name of ["message", "msg", "error", "detail"]) if (name in fields) visit(fields[name]);
    }
  };
  visit(body);
  return { message, position };
}

async function getJson<T>(url: string, signal?: AbortSignal): Promise<T> {
  const response = await request(url, signal ? { signal } : {});
  return (await response.json()) as T;
}

async function sendJson<T>(method: string, url: string, body?: unknown): Promise<T> {
  const init: RequestInit = { method };
  if (body !== undefined) {
    init.body = JSON.stringify(body);
    init.headers = { "Content-Type": "application/json" };
  }
  const response = await request(url, init);
  return (await response.json()) as T;
}

const runPath = (project: string, run: string): string => `/api/v1/runs/${segment(project)}/${segment(run)}`;

export const api = {
  hub: (): Promise<Hub> => getJson("/api/v1/hub"),

  projects: async (): Promise<Project[]> => (await getJson<{ projects: Project[] }>("/api/v1/projects")).projects,

  columns: async (project: string): Promise<Column[]> =>
    (await getJson<{ columns: Column[] }>(`/api/v1/projects/${segment(project)}/columns`)).columns,

  runs: (
    project: string,
    query: { where?: string; sort?: string; limit?: number; cursor?: string },
    signal?: AbortSignal,
  ): Promise<RunsPage> => getJson(buildUrl(`/api/v1/projects/${segment(project)}/runs`, query), signal),

  run: (project: string, run: string): Promise<Run> => getJson(runPath(project, run)),

  editRun: (project: string, run: string, changes: Partial<Pick<Run, "name" | "notes" | "tags">>): Promise<Run> =>
    sendJson("PATCH", runPath(project, run), changes),

  stopRun: (project: string, run: string): Promise<unknown> => sendJson("POST", `${runPath(project, run)}/stop`, {}),

  keys: async (project: string, run: string, stream: Stream = "default"): Promise<KeyInfo[]> =>
    (await getJson<{ keys: KeyInfo[] }>(buildUrl(`${runPath(project, run)}/keys`, { stream }))).keys,

  attempts: async (project: string, run: string): Promise<Attempt[]> =>
    (await getJson<{ attempts: Attempt[] }>(`${runPath(project, run)}/attempts`)).attempts,

  writers: async (project: string, run: string): Promise<Writer[]> =>
    (await getJson<{ writers: Writer[] }>(`${runPath(project, run)}/writers`)).writers,

  charts: async (body: ChartRequest): Promise<ChartAnswer> => {
    const response = await request("/api/v1/charts", {
      method: "POST",
      body: JSON.stringify(body),
      headers: { "Content-Type": "application/json" },
    });
    return decodeCharts(await response.arrayBuffer());
  },

  /** Exchanges a link's single-use ticket for a session; keeps the key for this origin. */
  openSession: async (ticket: string): Promise<void> => {
    const { key } = await sendJson<{ key: string }>("POST", "/api/v1/session", { ticket });
    localStorage.setItem(KEY_NAME, key);
  },

  /** Saves a run's history as a file of the browser's download folder. */
  download: async (project: string, run: string, format: "csv" | "jsonl" | "parquet"): Promise<void> => {
    const response = await request(buildUrl(`${runPath(project, run)}/export`, { format }));
    const address = URL.createObjectURL(await response.blob());
    const link = document.createElement("a");
    link.href = address;
    link.download = `${run}.${format}`;
    link.click();
    URL.revokeObjectURL(address);
  },
};
