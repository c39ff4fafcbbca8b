/**
 * The runs of a project that match a filter, in pages.
 *
 * Keyset paging gives a page's successor only, so pages are read in order; one that scrolled far away is dropped
 * and read again by its cursor, so that 100,000 runs never stand in memory together.
 */

import { signal } from "@preact/signals";
import { ApiError } from "../api";
import { withValue } from "../format";
import type { Change, Run, RunsPage } from "../types";
import { Throttle } from "./throttle";

export const PAGE_SIZE = 200;
const PAGES_KEPT = 20;

export interface RunQuery {
  where: string;
  sort: string;
}

export interface RunListError {
  message: string;
  /** Offset of a mistake in the filter. */
  position: number | null;
}

interface Page {
  cursor: string;
  runs: Run[] | null;
  count: number;
}

export interface RunSource {
  runs(query: RunQuery & { limit: number; cursor: string }): Promise<RunsPage>;
  run(runId: string): Promise<Run>;
}

export class RunList {
  /** Grows with every change of what the list holds. */
  readonly revision = signal(0);
  readonly total = signal(0);
  readonly isLoading = signal(true);
  readonly error = signal<RunListError | null>(null);

  #pages: Page[] = [];
  #next: string | null = "";
  #query: RunQuery = { where: "", sort: "-created" };
  #generation = 0;
  readonly #busy = new Set<string>();
  readonly #changed = new Set<string>();
  readonly #byId = new Map<string, Run>();
  readonly #refreshTop = new Throttle(() => this.#readTop(), 1000);
  readonly #refreshRuns = new Throttle(() => this.#readChanged(), 1000);
  readonly #announce = new Throttle(() => void (this.revision.value += 1), 250);

  constructor(private readonly source: RunSource) {}

  /** Starts over with another filter or order. */
  async setQuery(query: RunQuery): Promise<void> {
    this.#query = query;
    this.#generation += 1;
    this.isLoading.value = true;
    await this.#readFirst();
  }

  /** Rows that the list has so far (all pages read, also those dropped again). */
  get length(): number {
    return this.#pages.reduce((sum, page) => sum + page.count, 0);
  }

  /** Run at a row; undefined while its page is being read. */
  at(index: number): Run | undefined {
    let rest = index;
    for (const page of this.#pages) {
      if (rest < page.count) return page.runs?.[rest];
      rest -= page.count;
    }
    return undefined;
  }

  find(runId: string): Run | undefined {
    return this.#byId.get(runId);
  }

  /** The first `count` rows that are in memory. */
  top(count: number): Run[] {
    const runs: Run[] = [];
    for (const page of this.#pages) {
      runs.push(...(page.runs ?? []).slice(0, count - runs.length));
      if (runs.length >= count) break;
    }
    return runs;
  }

  /** Reads what rows [start, end) lack and the page after them; drops pages far from them. */
  show(start: number, end: number): void {
    let row = 0;
    this.#pages.forEach((page, index) => {
      const isNear = row < end + PAGE_SIZE && row + page.count > start - PAGE_SIZE;
      if (isNear && page.runs === null) void this.#readPage(index);
      const isFar = row > end + PAGES_KEPT * PAGE_SIZE || row + page.count < start - PAGES_KEPT * PAGE_SIZE;
      if (isFar && index > 0 && page.runs !== null) this.#drop(page);
      row += page.count;
    });
    if (end + PAGE_SIZE / 2 > row) void this.#readNext();
  }

  onChange(change: Change): void {
    const run = this.#byId.get(change.run_id);
    const isStructural = change.fields.some((field) => field === "created" || field === "deleted" || field === "project");
    if (run === undefined || isStructural) {
      this.#refreshTop.request();
      return;
    }
    let summary = run.summary;
    for (const [key, value] of Object.entries(change.last)) summary = withValue(summary, key, value);
    Object.assign(run, { summary, version: change.version });
    if (change.fields.length > 0) {
      this.#changed.add(run.run_id);
      this.#refreshRuns.request();
    }
    this.#announce.request();
  }

  resync(): void {
    this.#refreshTop.request();
  }

  stop(): void {
    this.#generation += 1;
    for (const throttle of [this.#refreshTop, this.#refreshRuns, this.#announce]) throttle.stop();
  }

  async #ask(cursor: string): Promise<RunsPage | null> {
    const generation = this.#generation;
    try {
      const page = await this.source.runs({ ...this.#query, limit: PAGE_SIZE, cursor });
      if (generation !== this.#generation) return null;
      this.error.value = null;
      return page;
    } catch (error) {
      if (generation !== this.#generation) return null;
      const position = error instanceof ApiError ? error.position : null;
      this.error.value = { message: (error as Error).message, position };
      return null;
    } finally {
      if (generation === this.#generation) this.isLoading.value = false;
    }
  }

  async #readFirst(): Promise<void> {
    const answer = await this.#ask("");
    if (answer === null) return;
    this.#pages = [];
    this.#byId.clear();
    this.#busy.clear();
    this.#append("", answer);
  }

  #append(cursor: string, answer: RunsPage): void {
    this.#pages.push({ cursor, runs: answer.runs, count: answer.runs.length });
    for (const run of answer.runs) this.#byId.set(run.run_id, run);
    this.#next = answer.next_cursor || null;
    this.total.value = answer.total;
    this.revision.value += 1;
  }

  async #readNext(): Promise<void> {
    const cursor = this.#next;
    if (cursor === null || cursor === "" || this.#busy.has(cursor)) return;
    this.#busy.add(cursor);
    const answer = await this.#ask(cursor);
    this.#busy.delete(cursor);
    if (answer !== null && this.#next === cursor) this.#append(cursor, answer);
  }

  async #readPage(index: number): Promise<void> {
    const page = this.#pages[index] as Page;
    const id = `again ${page.cursor}`;
    if (this.#busy.has(id)) return;
    this.#busy.add(id);
    const answer = await this.#ask(page.cursor);
    this.#busy.delete(id);
    if (answer === null) return;
    page.runs = answer.runs;
    page.count = answer.runs.length;
    for (const run of answer.runs) this.#byId.set(run.run_id, run);
    this.revision.value += 1;
  }

  #drop(page: Page): void {
    for (const run of page.runs ?? []) this.#byId.delete(run.run_id);
    page.runs = null;
  }

  /** New, gone or moved runs: the first page again; what followed stays when the page itself stayed the same. */
  async #readTop(): Promise<void> {
    const answer = await this.#ask("");
    if (answer === null) return;
    const first = this.#pages[0];
    const ids = (runs: Run[] | null | undefined): string => (runs ?? []).map((run) => run.run_id).join("\n");
    if (first && ids(first.runs) === ids(answer.runs)) {
      first.runs = answer.runs;
      for (const run of answer.runs) this.#byId.set(run.run_id, run);
      this.total.value = answer.total;
      this.revision.value += 1;
      return;
    }
    this.#pages = [];
    this.#byId.clear();
    this.#append("", answer);
  }

  async #readChanged(): Promise<void> {
    const ids = [...this.#changed].slice(0, 20);
    for (const id of ids) {
      this.#changed.delete(id);
      const run = this.#byId.get(id);
      if (run === undefined) continue;
      try {
        Object.assign(run, await this.source.run(id));
      } catch (error) {
        if (error instanceof ApiError && error.status === 404) this.#refreshTop.request();
      }
    }
    if (this.#changed.size > 0) this.#refreshRuns.request();
    this.revision.value += 1;
  }
}
