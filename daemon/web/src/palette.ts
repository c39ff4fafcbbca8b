/** Run colours: ten hues that stay apart for colour-blind eyes (after Okabe and Ito, and Tol), then dashes. */

export interface RunStyle {
  light: string;
  dark: string;
  dash: number[];
}

const HUES: [light: string, dark: string][] = [
  ["#0072b2", "#56b4e9"],
  ["#d55e00", "#ff8c42"],
  ["#007d5c", "#2fc496"],
  ["#b5468b", "#e68fc0"],
  ["#8a6d00", "#f0d24a"],
  ["#5b3fa8", "#a893f5"],
  ["#117f8f", "#54d1dd"],
  ["#a11d33", "#ff7a85"],
  ["#4f7a1b", "#a5d65b"],
  ["#5f6670", "#c2c8d0"],
];

const DASHES: number[][] = [[], [7, 4], [2, 3], [10, 3, 2, 3]];

export const STYLE_COUNT = HUES.length * DASHES.length;

export function styleOf(slot: number): RunStyle {
  const [light, dark] = HUES[slot % HUES.length] as [string, string];
  return { light, dark, dash: DASHES[Math.floor(slot / HUES.length) % DASHES.length] as number[] };
}

/**
 * Hands out slots so that a run keeps its colour through filters, groups and reloads.
 *
 * A new run takes the slot used by the fewest runs so far; `load` and `save` keep the choice.
 */
export class ColourBook {
  readonly #slots: Map<string, number>;
  readonly #uses = new Array<number>(STYLE_COUNT).fill(0);

  constructor(
    entries: Iterable<[string, number]>,
    private readonly save: (entries: [string, number][]) => void,
  ) {
    this.#slots = new Map(entries);
    for (const slot of this.#slots.values()) this.#uses[slot % STYLE_COUNT]! += 1;
  }

  slot(runId: string): number {
    const known = this.#slots.get(runId);
    if (known !== undefined) return known;
    const slot = this.#uses.indexOf(Math.min(...this.#uses));
    this.#uses[slot]! += 1;
    this.#slots.set(runId, slot);
    this.save([...this.#slots]);
    return slot;
  }

  style(runId: string): RunStyle {
    return styleOf(this.slot(runId));
  }
}
