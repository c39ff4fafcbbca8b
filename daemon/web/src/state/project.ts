/** Everything that a project's page knows; made when the page opens, stopped when it closes. */

import { computed, effect, signal, type ReadonlySignal } from "@preact/signals";
import { api } from "../api";
import type { ChartScope } from "../components/chart-scope";
import { ColourBook } from "../palette";
import { queryValue, setQuery } from "../router";
import type { Column, RunRef } from "../types";
import { ChartStore } from "./chart-store";
import { KeyIndex } from "./key-index";
import { followLive, paintLagMs } from "./live";
import { readStored, storedSignal, writeStored } from "./prefs";
import { RunList } from "./run-list";
import { ShownRuns } from "./shown-runs";
import { Throttle } from "./throttle";
import { makeViewState } from "./view";

const COLOURS_KEPT = 2000;
const DEFAULT_COLUMNS = ["state", "created", "duration"];
const DEFAULT_EXTRA = { config: 3, summary: 3 };

export class ProjectState {
  readonly list: RunList;
  readonly shown: ShownRuns;
  readonly scope: ChartScope;
  readonly catalogue = signal<Column[]>([]);
  readonly where: ReadonlySignal<string> = computed(() => queryValue("where"));
  readonly sort: ReadonlySignal<string> = computed(() => queryValue("sort") || "-created");
  /** The table's columns after the name. */
  readonly columns: ReadonlySignal<string[]>;

  readonly #chosen;
  readonly #store: ChartStore;
  readonly #index: KeyIndex;
  readonly #readColumns = new Throttle(() => this.#askForColumns(), 5000);
  readonly #ends: (() => void)[] = [];
  #changeAt: number | null = null;

  constructor(readonly project: string) {
    this.list = new RunList({
      runs: (query) => api.runs(project, query),
      run: (id) => api.run(project, id),
    });
    this.shown = new ShownRuns(project, this.list);
    this.#chosen = storedSignal<string[] | null>(`trackd_columns:${project}`, null);
    this.columns = computed(() => {
      const fromAddress = queryValue("cols");
      if (fromAddress) return fromAddress.split(",").map(decodeURIComponent);
      return this.#chosen.value ?? defaultColumns(this.catalogue.value);
    });
    this.#store = new ChartStore(api.charts, () => this.#painted());
    this.#index = new KeyIndex(api.keys);
    const colours = makeColourBook(project);
    this.scope = {
      store: this.#store,
      index: this.#index,
      stream: "default",
      runs: this.shown.runs,
      style: (runId) => colours.style(runId),
      highlighted: signal<string | null>(null),
      view: makeViewState(),
    };
  }

  start(): void {
    this.#ends.push(
      effect(() => void this.list.setQuery({ where: this.where.value, sort: this.sort.value })),
      effect(() => this.#index.setRuns(this.shown.runs.value.map((run): RunRef => [run.project, run.run_id]))),
      followLive(
        { project: this.project },
        {
          onChange: (change) => {
            this.#changeAt ??= performance.now();
            this.list.onChange(change);
            this.#index.onChange(change);
            this.#store.markChanged(change.project, change.run_id, change.keys, change.has_more_keys);
            if (change.fields.some((field) => field === "created" || field === "config" || field === "summary")) this.#readColumns.request();
          },
          onResync: () => {
            this.list.resync();
            this.#index.resync();
            this.#store.resync();
          },
        },
      ),
    );
    this.#readColumns.request();
  }

  stop(): void {
    for (const end of this.#ends) end();
    this.list.stop();
    this.#store.stop();
    this.#index.stop();
    this.#readColumns.stop();
  }

  setWhere(where: string): void {
    setQuery({ where });
  }

  setSort(sort: string): void {
    setQuery({ sort: sort === "-created" ? "" : sort });
  }

  /** Chooses the table's columns: for this browser and for whoever gets the link. */
  setColumns(paths: string[] | null): void {
    this.#chosen.value = paths;
    setQuery({ cols: paths === null ? "" : paths.map(encodeURIComponent).join(",") });
  }

  async #askForColumns(): Promise<void> {
    try {
      this.catalogue.value = await api.columns(this.project);
    } catch {
      // The table says what is wrong with the hub; the picker keeps what it has.
    }
  }

  #painted(): void {
    if (this.#changeAt === null) return;
    const since = this.#changeAt;
    this.#changeAt = null;
    requestAnimationFrame(() => (paintLagMs.value = performance.now() - since));
  }
}

/** Values that people judge runs by. */
const RESULT = /loss|acc|error|score|reward|f1|auc|perplexity|bleu/i;

/** What most runs have comes first: state, times, tags and a few results and config values. */
export function defaultColumns(catalogue: readonly Column[]): string[] {
  const best = (kind: "config" | "summary"): string[] =>
    catalogue
      .filter((column) => column.kind === kind && !column.path.startsWith(`${kind}._`))
      .sort(
        (a, b) =>
          Number(RESULT.test(b.path)) - Number(RESULT.test(a.path)) ||
          b.runs - a.runs ||
          Number(b.type === "number") - Number(a.type === "number"),
      )
      .slice(0, DEFAULT_EXTRA[kind])
      .map((column) => column.path);
  return [...DEFAULT_COLUMNS, ...best("summary"), ...best("config"), "tags"];
}

export function makeColourBook(project: string): ColourBook {
  const name = `trackd_colours:${project}`;
  return new ColourBook(readStored<[string, number][]>(name, []), (entries) => writeStored(name, entries.slice(-COLOURS_KEPT)));
}
