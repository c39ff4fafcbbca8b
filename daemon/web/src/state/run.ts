/** Everything that a run's page knows. */

import { computed, signal } from "@preact/signals";
import { api, ApiError } from "../api";
import type { ChartScope } from "../components/chart-scope";
import { withValue } from "../format";
import type { Change, Run, Stream } from "../types";
import { ChartStore } from "./chart-store";
import { KeyIndex } from "./key-index";
import { followLive, paintLagMs } from "./live";
import { makeColourBook } from "./project";
import { isSameCast } from "./shown-runs";
import { Throttle } from "./throttle";
import { makeViewState } from "./view";

export class RunPageState {
  readonly run = signal<Run | null>(null);
  readonly error = signal<string | null>(null);
  readonly isMissing = signal(false);
  /** Number of the attempt that is drawn alone; null: the run's one curve. */
  readonly attempt = signal<number | null>(null);
  readonly scopes: Record<Stream, ChartScope>;

  readonly #read = new Throttle(() => this.#ask(), 1000);
  readonly #store: ChartStore;
  #end: () => void = () => {};
  #changeAt: number | null = null;

  constructor(
    readonly project: string,
    readonly runId: string,
  ) {
    const ask: typeof api.charts = (request) => api.charts(this.attempt.value === null ? request : { ...request, attempt: this.attempt.value });
    this.#store = new ChartStore(ask, () => this.#painted());
    const colours = makeColourBook(project);
    const view = makeViewState();
    let before: Run[] = [];
    const runs = computed(() => {
      const now = this.run.value === null ? [] : [this.run.value];
      if (!isSameCast(now, before)) before = now;
      return before;
    });
    const highlighted = signal<string | null>(null);
    const scope = (stream: Stream): ChartScope => ({
      store: this.#store,
      index: new KeyIndex(api.keys, stream),
      stream,
      runs,
      style: (id) => colours.style(id),
      highlighted,
      view,
    });
    this.scopes = { default: scope("default"), system: scope("system") };
  }

  start(): void {
    this.#read.request();
    for (const scope of this.#scopes) scope.index.setRuns([[this.project, this.runId]]);
    this.#end = followLive(
      { project: this.project, run: this.runId },
      {
        onChange: (change) => this.#onChange(change),
        onResync: () => {
          this.#read.request();
          this.#store.resync();
          for (const scope of this.#scopes) scope.index.resync();
        },
      },
    );
  }

  stop(): void {
    this.#end();
    this.#read.stop();
    this.#store.stop();
    for (const scope of this.#scopes) scope.index.stop();
  }

  /** Draws one attempt alone, or (null) the run's one curve. */
  show(attempt: number | null): void {
    if (attempt === this.attempt.value) return;
    this.attempt.value = attempt;
    this.#store.resync();
  }

  /** Writes notes or tags; the page shows them at once and takes them back if the hub refuses. */
  async edit(changes: Partial<Pick<Run, "name" | "notes" | "tags">>): Promise<void> {
    const before = this.run.value;
    if (before === null) return;
    this.run.value = { ...before, ...changes };
    try {
      await api.editRun(this.project, this.runId, changes);
      this.error.value = null;
    } catch (error) {
      this.run.value = before;
      this.error.value = `Not saved: ${(error as Error).message}`;
    }
  }

  get #scopes(): ChartScope[] {
    return Object.values(this.scopes);
  }

  #onChange(change: Change): void {
    if (change.run_id !== this.runId || change.project !== this.project) return;
    this.#changeAt ??= performance.now();
    for (const scope of this.#scopes) scope.index.onChange(change);
    this.#store.markChanged(change.project, change.run_id, change.keys, change.has_more_keys);
    const run = this.run.value;
    if (run === null || change.fields.length > 0) this.#read.request();
    if (run === null) return;
    let summary = run.summary;
    for (const [key, value] of Object.entries(change.last)) summary = withValue(summary, key, value);
    this.run.value = { ...run, summary, version: change.version };
  }

  async #ask(): Promise<void> {
    try {
      this.run.value = await api.run(this.project, this.runId);
      this.error.value = null;
      this.isMissing.value = false;
    } catch (error) {
      this.isMissing.value = error instanceof ApiError && error.status === 404;
      this.error.value = (error as Error).message;
    }
  }

  #painted(): void {
    if (this.#changeAt === null) return;
    const since = this.#changeAt;
    this.#changeAt = null;
    requestAnimationFrame(() => (paintLagMs.value = performance.now() - since));
  }
}
