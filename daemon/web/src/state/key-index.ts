/** Which numeric keys the shown runs have; filled from the hub, kept fresh by pushed changes. */

import { signal } from "@preact/signals";
import type { Change, KeyInfo, RunRef, Stream } from "../types";
import { Throttle } from "./throttle";

const PARALLEL_QUESTIONS = 4;

const pairId = ([project, run]: RunRef): string => `${project}\n${run}`;

export class KeyIndex {
  /** Key → the ids of the runs that have it; a new map for every change. */
  readonly keys = signal<ReadonlyMap<string, ReadonlySet<string>>>(new Map());
  readonly error = signal<string | null>(null);
  readonly isLoaded = signal(false);

  readonly #known = new Map<string, Map<string, KeyInfo["type"]>>();
  readonly #wanted = new Set<string>();
  readonly #stale = new Set<string>();
  readonly #asking = new Set<string>();
  readonly #throttle = new Throttle(() => this.#askForStale(), 1000);
  #runs: readonly RunRef[] = [];

  constructor(
    private readonly ask: (project: string, run: string, stream: Stream) => Promise<KeyInfo[]>,
    private readonly stream: Stream = "default",
  ) {}

  /** The runs whose keys are shown; unknown ones are asked for. */
  setRuns(runs: readonly RunRef[]): void {
    this.#runs = runs;
    this.#wanted.clear();
    for (const run of runs) {
      this.#wanted.add(pairId(run));
      if (!this.#known.has(pairId(run)) && !this.#asking.has(pairId(run))) this.#stale.add(pairId(run));
    }
    this.#publish();
    void this.#askForStale();
  }

  /** Takes new keys from a pushed change; asks again when the change could not name them all. */
  onChange(change: Change): void {
    const id = pairId([change.project, change.run_id]);
    if (!this.#wanted.has(id)) return;
    const known = this.#known.get(id);
    if (known === undefined || change.has_more_keys || change.keys.some((key) => !known.has(key))) {
      this.#stale.add(id);
      this.#throttle.request();
    }
  }

  resync(): void {
    for (const id of this.#wanted) this.#stale.add(id);
    this.#throttle.request();
  }

  stop(): void {
    this.#throttle.stop();
  }

  async #askForStale(): Promise<void> {
    const todo = this.#runs.filter((run) => this.#stale.has(pairId(run)));
    for (const run of todo) this.#stale.delete(pairId(run));
    const worker = async (): Promise<void> => {
      for (let run = todo.shift(); run !== undefined; run = todo.shift()) await this.#askFor(run);
    };
    const had = todo.length > 0;
    await Promise.all(Array.from({ length: Math.min(PARALLEL_QUESTIONS, todo.length) }, worker));
    if (had || this.#runs.every((run) => this.#known.has(pairId(run)))) this.isLoaded.value = true;
    this.#publish();
  }

  async #askFor(run: RunRef): Promise<void> {
    this.#asking.add(pairId(run));
    try {
      const infos = await this.ask(run[0], run[1], this.stream);
      this.#known.set(pairId(run), new Map(infos.map((info) => [info.key, info.type])));
      this.error.value = null;
    } catch (error) {
      this.error.value = (error as Error).message;
    } finally {
      this.#asking.delete(pairId(run));
    }
  }

  #publish(): void {
    const keys = new Map<string, Set<string>>();
    for (const run of this.#runs) {
      for (const [key, type] of this.#known.get(pairId(run)) ?? []) {
        if (type !== "number") continue;
        const runs = keys.get(key);
        if (runs) runs.add(run[1]);
        else keys.set(key, new Set([run[1]]));
      }
    }
    if (!sameIndex(keys, this.keys.peek())) this.keys.value = keys;
  }
}

function sameIndex(a: ReadonlyMap<string, ReadonlySet<string>>, b: ReadonlyMap<string, ReadonlySet<string>>): boolean {
  if (a.size !== b.size) return false;
  for (const [key, runs] of a) {
    const other = b.get(key);
    if (other === undefined || other.size !== runs.size) return false;
    for (const run of runs) if (!other.has(run)) return false;
  }
  return true;
}
