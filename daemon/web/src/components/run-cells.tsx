/** Cells of the runs table by column path. */

import type { ComponentChildren } from "preact";
import { formatDuration, formatMinute, formatTime, formatValue, valueAt } from "../format";
import type { Run } from "../types";
import { RunState } from "./RunState";

const WIDTHS: Record<string, number> = { state: 104, created: 138, duration: 92, tags: 120 };

export function widthOf(path: string): number {
  return WIDTHS[path] ?? 104;
}

/** Columns that every run has. */
export const RUN_COLUMNS = ["state", "created", "duration", "user", "host", "tags", "group", "job_type", "notes", "last_step", "rows"] as const;

const SORTABLE = new Set(["name", "state", "created", "duration", "user", "host", "group"]);

export function isSortable(path: string): boolean {
  return SORTABLE.has(path) || path.startsWith("config.") || path.startsWith("summary.");
}

/** Title without the part that the eye can do without. */
export function columnTitle(path: string): ComponentChildren {
  const dot = path.indexOf(".");
  const kind = path.slice(0, dot);
  if (kind !== "config" && kind !== "summary") return path.replaceAll("_", " ");
  return (
    <span title={path}>
      <span class="column-kind">{kind === "config" ? "c" : "s"}</span>
      {path.slice(dot + 1)}
    </span>
  );
}

export function cellOf(run: Run, path: string): ComponentChildren {
  switch (path) {
    case "state":
      return <RunState run={run} />;
    case "created":
      return <span title={formatTime(run.created_us)}>{formatMinute(run.created_us)}</span>;
    case "duration":
      return formatDuration(run.duration_s);
    case "tags":
      return run.tags.map((tag) => (
        <span key={tag} class="tag">
          {tag}
        </span>
      ));
    case "user":
    case "host":
    case "group":
    case "job_type":
    case "notes":
      return <span title={run[path]}>{run[path]}</span>;
    case "last_step":
    case "rows":
      return <span class="number">{formatValue(run[path])}</span>;
    default:
      return nestedCell(run, path);
  }
}

function nestedCell(run: Run, path: string): ComponentChildren {
  const dot = path.indexOf(".");
  const object = path.startsWith("config.") ? run.config : path.startsWith("summary.") ? run.summary : null;
  if (object === null) return "";
  const value = valueAt(object, path.slice(dot + 1));
  const text = formatValue(value);
  return (
    <span class={typeof value === "number" ? "number" : ""} title={typeof value === "number" ? String(value) : text}>
      {text}
    </span>
  );
}
