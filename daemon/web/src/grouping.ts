/** Which charts stand in which section, and which a search leaves. */

export interface Section {
  name: string;
  keys: string[];
}

/** The section of keys without a prefix. */
export const UNGROUPED = "charts";

/** Text before the first "/"; without one, before the first "." of a nested value ("acc@0.5" is not nested). */
export function prefixOf(key: string): string {
  const slash = key.indexOf("/");
  if (slash >= 0) return slash > 0 ? key.slice(0, slash) : UNGROUPED;
  return /^([^.]+)\.[^.\d\s]/.exec(key)?.[1] ?? UNGROUPED;
}

const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

/** Sections by first prefix, the unprefixed first, all in natural order (layer2 before layer10). */
export function groupKeys(keys: Iterable<string>): Section[] {
  const sections = new Map<string, string[]>();
  for (const key of keys) {
    const name = prefixOf(key);
    const section = sections.get(name);
    if (section) section.push(key);
    else sections.set(name, [key]);
  }
  return [...sections]
    .map(([name, members]) => ({ name, keys: members.sort(collator.compare) }))
    .sort((a, b) => Number(b.name === UNGROUPED) - Number(a.name === UNGROUPED) || collator.compare(a.name, b.name));
}

export interface KeySearch {
  matches: (key: string) => boolean;
  /** The pattern is not a regular expression yet (it is searched literally meanwhile). */
  error: string | null;
}

/** A case-insensitive regular expression over keys; "" matches all. */
export function keySearch(pattern: string): KeySearch {
  if (pattern === "") return { matches: () => true, error: null };
  try {
    const expression = new RegExp(pattern, "i");
    return { matches: (key) => expression.test(key), error: null };
  } catch (error) {
    const literal = pattern.toLowerCase();
    return { matches: (key) => key.toLowerCase().includes(literal), error: (error as Error).message };
  }
}
