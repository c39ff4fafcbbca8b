/** Small choices that stay in this browser. */

import { effect, signal, type Signal } from "@preact/signals";

export function readStored<T>(name: string, fallback: T): T {
  try {
    const text = localStorage.getItem(name);
    return text === null ? fallback : (JSON.parse(text) as T);
  } catch {
    return fallback;
  }
}

export function writeStored(name: string, value: unknown): void {
  try {
    localStorage.setItem(name, JSON.stringify(value));
  } catch {
    // A full or forbidden storage costs the memory of a choice, nothing else.
  }
}

/** A signal whose value is kept under `name`. */
export function storedSignal<T>(name: string, fallback: T): Signal<T> {
  const state = signal<T>(readStored(name, fallback));
  let isFirst = true;
  effect(() => {
    const value = state.value;
    if (!isFirst) writeStored(name, value);
    isFirst = false;
  });
  return state;
}

export type ThemeChoice = "auto" | "light" | "dark";

export const themeChoice = storedSignal<ThemeChoice>("trackd_theme", "auto");
const systemIsDark = signal(false);

/** Whether the page is shown dark. */
export const isDark = signal(false);

/** Follows the system's and the user's choice. */
export function startTheme(): void {
  const media = matchMedia("(prefers-color-scheme: dark)");
  systemIsDark.value = media.matches;
  media.addEventListener("change", () => (systemIsDark.value = media.matches));
  effect(() => {
    isDark.value = themeChoice.value === "auto" ? systemIsDark.value : themeChoice.value === "dark";
    document.documentElement.dataset["theme"] = isDark.value ? "dark" : "light";
  });
}
