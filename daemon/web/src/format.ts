/** Values as people read them. */

import type { Json, JsonObject } from "./types";

/** Four significant digits; exact for integers that a double holds exactly. */
export function formatNumber(value: number): string {
  if (Number.isNaN(value)) return "NaN";
  if (value === Infinity) return "∞";
  if (value === -Infinity) return "−∞";
  if (Number.isInteger(value) && Math.abs(value) < 1e9) return value.toLocaleString("en-US").replace("-", "−");
  const size = Math.abs(value);
  const isFar = size !== 0 && (size < 1e-3 || size >= 1e6);
  const text = isFar ? value.toExponential(3).replace(/\.?0+e/, "e") : String(Number(value.toPrecision(4)));
  return text.replace("e+", "e").replace(/^-/, "−");
}

const NON_FINITE: Record<string, string> = { NaN: "NaN", Infinity: "∞", "-Infinity": "−∞" };

/** A config or summary value in one line; big integers travel as "int:…", non-finite floats by name. */
export function formatValue(value: Json | undefined): string {
  if (value === undefined || value === null) return value === null ? "null" : "";
  if (typeof value === "number") return formatNumber(value);
  if (typeof value === "string") return value.startsWith("int:") ? value.slice(4) : (NON_FINITE[value] ?? value);
  if (typeof value === "boolean") return String(value);
  return JSON.stringify(value);
}

export function formatCount(value: number, noun: string): string {
  return `${formatNumber(value)} ${noun}${value === 1 ? "" : "s"}`;
}

/** Seconds as "1.5 s", "3 min 20 s", "2 h 5 min", "4 d 3 h". */
export function formatDuration(seconds: number | null): string {
  if (seconds === null || !Number.isFinite(seconds)) return "";
  if (seconds < 10) return `${Number(seconds.toFixed(1))} s`;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const units: [number, string][] = [
    [86_400, "d"],
    [3_600, "h"],
    [60, "min"],
    [1, "s"],
  ];
  const first = units.findIndex(([size]) => seconds >= size);
  const [size, name] = units[first] as [number, string];
  const whole = Math.floor(seconds / size);
  const next = units[first + 1];
  const rest = next ? Math.floor((seconds - whole * size) / next[0]) : 0;
  return next && rest > 0 ? `${whole} ${name} ${rest} ${next[1]}` : `${whole} ${name}`;
}

/** "just now", "3 min ago", "2 d ago". */
export function formatAgo(timeUs: number, nowMs: number): string {
  const seconds = (nowMs - timeUs / 1000) / 1000;
  if (seconds < 5) return "just now";
  return `${formatDuration(seconds).split(" ").slice(0, 2).join(" ")} ago`;
}

export function formatTime(timeUs: number): string {
  return new Date(timeUs / 1000).toLocaleString("sv-SE");
}

/** To the minute: enough for a column of runs. */
export function formatMinute(timeUs: number): string {
  return formatTime(timeUs).slice(0, 16);
}

/** The value at a dotted path of a nested object; a key that itself has dots wins. */
export function valueAt(object: JsonObject, path: string): Json | undefined {
  if (path in object) return object[path];
  for (let dot = path.indexOf("."); dot > 0; dot = path.indexOf(".", dot + 1)) {
    const child = object[path.slice(0, dot)];
    if (typeof child === "object" && child !== null && !Array.isArray(child)) {
      const found = valueAt(child, path.slice(dot + 1));
      if (found !== undefined) return found;
    }
  }
  return undefined;
}

/** Sets the value at a key (taken whole, never split) or, when its first part is an object already, inside it. */
export function withValue(object: JsonObject, path: string, value: Json): JsonObject {
  const dot = path.indexOf(".");
  if (!(path in object) && dot > 0) {
    const head = path.slice(0, dot);
    const child = object[head];
    if (typeof child === "object" && child !== null && !Array.isArray(child)) {
      return { ...object, [head]: withValue(child, path.slice(dot + 1), value) };
    }
  }
  return { ...object, [path]: value };
}

/** Nested objects as sorted rows of dotted path and value. */
export function flatten(object: JsonObject, prefix = ""): [string, Json][] {
  return Object.entries(object)
    .sort(([a], [b]) => a.localeCompare(b, "en", { numeric: true }))
    .flatMap(([key, value]): [string, Json][] => {
      const isBranch = typeof value === "object" && value !== null && !Array.isArray(value) && Object.keys(value).length > 0;
      return isBranch ? flatten(value as JsonObject, `${prefix}${key}.`) : [[prefix + key, value]];
    });
}
