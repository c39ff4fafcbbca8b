/** Which runs are drawn: the first N of the list, plus and minus what the eye toggles say. */

import { computed, type ReadonlySignal, type Signal } from "@preact/signals";
import type { Run } from "../types";
import { storedSignal } from "./prefs";
import type { RunList } from "./run-list";

export const SHOWN_CHOICES = [5, 10, 25, 50, 100] as const;

interface Overrides {
  shown: string[];
  hidden: string[];
}

export class ShownRuns {
  readonly limit: Signal<number>;
  /** The drawn runs in list order. */
  readonly runs: ReadonlySignal<Run[]>;
  readonly ids: ReadonlySignal<ReadonlySet<string>>;
  readonly #overrides: Signal<Overrides>;

  constructor(project: string, list: RunList) {
    this.limit = storedSignal("trackd_shown_limit", 10);
    this.#overrides = storedSignal<Overrides>(`trackd_eyes:${project}`, { shown: [], hidden: [] });
    let before: Run[] = [];
    this.runs = computed(() => {
      void list.revision.value;
      const hidden = new Set(this.#overrides.value.hidden);
      const top = list.top(this.limit.value);
      const topIds = new Set(top.map((run) => run.run_id));
      const extra = this.#overrides.value.shown.filter((id) => !topIds.has(id)).map((id) => list.find(id));
      const runs = [...top.filter((run) => !hidden.has(run.run_id)), ...extra.filter((run) => run !== undefined)];
      // The list changes with every pushed value; the charts care only about who is drawn and by which name.
      if (isSameCast(runs, before)) return before;
      before = runs;
      return runs;
    });
    this.ids = computed(() => new Set(this.runs.value.map((run) => run.run_id)));
  }

  toggle(runId: string): void {
    const { shown, hidden } = this.#overrides.value;
    const without = (list: string[]): string[] => list.filter((id) => id !== runId);
    const isShown = this.ids.value.has(runId);
    this.#overrides.value = isShown
      ? { shown: without(shown), hidden: [...without(hidden), runId] }
      : { shown: [...without(shown), runId], hidden: without(hidden) };
  }

  /** Draws this run only. */
  solo(runId: string): void {
    const others = this.runs.value.map((run) => run.run_id).filter((id) => id !== runId);
    this.#overrides.value = { shown: [runId], hidden: others };
  }

  /** Forgets the toggles. */
  reset(): void {
    this.#overrides.value = { shown: [], hidden: [] };
  }

  get hasOverrides(): boolean {
    return this.#overrides.value.shown.length + this.#overrides.value.hidden.length > 0;
  }
}

/** Whether the same runs stand in the same order under the same names. */
export function isSameCast(a: readonly Run[], b: readonly Run[]): boolean {
  return a.length === b.length && a.every((run, index) => run.run_id === b[index]?.run_id && run.name === b[index]?.name);
}
