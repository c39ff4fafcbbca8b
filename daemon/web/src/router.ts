/** The address bar as state: which page, and the view's choices in the query. */

import { computed, signal } from "@preact/signals";

export type Route =
  | { page: "projects" }
  | { page: "project"; project: string }
  | { page: "run"; project: string; run: string }
  | { page: "unknown"; path: string };

export function parseRoute(path: string): Route {
  const parts = path.split("/").filter(Boolean).map(safeDecode);
  if (parts.length === 0) return { page: "projects" };
  if (parts[0] === "p" && parts[1] !== undefined) {
    if (parts.length === 2) return { page: "project", project: parts[1] };
    if (parts.length === 4 && parts[2] === "r") return { page: "run", project: parts[1], run: parts[3] as string };
  }
  return { page: "unknown", path };
}

function safeDecode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

export const projectPath = (project: string): string => `/p/${encodeURIComponent(project)}`;
export const runPagePath = (project: string, run: string): string => `${projectPath(project)}/r/${encodeURIComponent(run)}`;

const path = signal("/");
const query = signal("");

/** The current page. */
export const route = computed(() => parseRoute(path.value));

function readAddress(): void {
  path.value = location.pathname;
  query.value = location.search;
}

/** Starts following the address bar and taking over clicks on links of this page. */
export function startRouter(): void {
  readAddress();
  addEventListener("popstate", readAddress);
  document.addEventListener("click", (event) => {
    if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    const link = (event.target as Element).closest?.("a");
    const isOurs = link && link.origin === location.origin && !link.target && !link.hasAttribute("download");
    if (!isOurs || link.pathname.startsWith("/api/")) return;
    if (link.pathname === location.pathname && link.hash) return;
    event.preventDefault();
    navigate(link.pathname + link.search);
  });
}

export function navigate(address: string): void {
  history.pushState(null, "", address);
  readAddress();
  scrollTo(0, 0);
}

/** The query parameter `name`, "" when absent. */
export function queryValue(name: string): string {
  return new URLSearchParams(query.value).get(name) ?? "";
}

/** Writes view choices into the address (replacing, so that Back leaves the page); "" removes one. */
export function setQuery(changes: Record<string, string>): void {
  const params = new URLSearchParams(location.search);
  for (const [name, value] of Object.entries(changes)) {
    if (value === "") params.delete(name);
    else params.set(name, value);
  }
  const text = params.toString();
  history.replaceState(null, "", location.pathname + (text ? `?${text}` : ""));
  readAddress();
}
