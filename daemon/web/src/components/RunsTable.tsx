/** The runs of a project as a grid of which only the visible rows exist. */

import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { formatNumber } from "../format";
import { runPagePath } from "../router";
import { isDark } from "../state/prefs";
import type { ProjectState } from "../state/project";
import type { Run } from "../types";
import { visibleWindow } from "../virtual";
import { cellOf, columnTitle, isSortable, widthOf } from "./run-cells";
import { Icon } from "./icons";

export const ROW_HEIGHT = 30;

export function RunsTable({ state }: { state: ProjectState }): JSX.Element {
  const scroller = useRef<HTMLDivElement>(null);
  const scroll = useSignal({ top: 0, height: 600 });
  const { list, columns } = state;
  void list.revision.value;
  const count = list.length;
  const { start, end } = visibleWindow(count, ROW_HEIGHT, Math.max(0, scroll.value.top - ROW_HEIGHT), scroll.value.height);

  useEffect(() => {
    const root = scroller.current as HTMLDivElement;
    const measure = (): void => void (scroll.value = { top: root.scrollTop, height: root.clientHeight });
    measure();
    const watcher = new ResizeObserver(measure);
    watcher.observe(root);
    return () => watcher.disconnect();
  }, []);
  useEffect(() => list.show(start, end), [start, end, list.revision.value]);

  const shown = columns.value;
  const template = ["minmax(170px, 1.6fr)", ...shown.map((path) => `minmax(${widthOf(path)}px, 1fr)`)].join(" ");
  const width = 170 + shown.reduce((sum, path) => sum + widthOf(path), 0);
  const style = { gridTemplateColumns: template, minWidth: `${width}px` };
  const rows: JSX.Element[] = [];
  for (let index = start; index < end; index += 1) rows.push(<Row key={index} index={index} state={state} style={style} columns={shown} />);
  return (
    <div
      ref={scroller}
      class="runs-scroller"
      role="grid"
      aria-label="Runs"
      aria-rowcount={list.total.value + 1}
      aria-colcount={shown.length + 1}
      onScroll={(event) => (scroll.value = { top: event.currentTarget.scrollTop, height: event.currentTarget.clientHeight })}
      onKeyDown={(event) => moveFocus(event)}
    >
      <div class="runs-row runs-head" role="row" aria-rowindex={1} style={style}>
        {["name", ...shown].map((path) => (
          <HeadCell key={path} path={path} state={state} />
        ))}
      </div>
      <div class="runs-body" role="rowgroup" style={{ height: `${count * ROW_HEIGHT}px`, minWidth: `${width}px` }}>
        <div class="runs-window" style={{ transform: `translateY(${start * ROW_HEIGHT}px)` }}>
          {rows}
        </div>
      </div>
      {count < list.total.value && <div class="runs-more">{formatNumber(count)} of {formatNumber(list.total.value)} runs read; scroll for more</div>}
    </div>
  );
}

function HeadCell({ path, state }: { path: string; state: ProjectState }): JSX.Element {
  const sort = state.sort.value;
  const isDescending = sort === `-${path}`;
  const isSorted = isDescending || sort === path;
  const sortable = isSortable(path);
  return (
    <div class="runs-cell" role="columnheader" aria-sort={isSorted ? (isDescending ? "descending" : "ascending") : "none"}>
      {sortable ? (
        <button type="button" class="head-button" title={`Sort by ${path}`} onClick={() => state.setSort(isSorted && !isDescending ? `-${path}` : isDescending ? path : firstOrder(path))}>
          {columnTitle(path)}
          <span aria-hidden="true">{isSorted ? (isDescending ? " ▾" : " ▴") : ""}</span>
        </button>
      ) : (
        <span>{columnTitle(path)}</span>
      )}
    </div>
  );
}

/** Newest and longest first; everything else from small to large. */
function firstOrder(path: string): string {
  return path === "created" || path === "duration" ? `-${path}` : path;
}

function Row(props: { index: number; state: ProjectState; style: JSX.CSSProperties; columns: readonly string[] }): JSX.Element {
  const { index, state } = props;
  const run = state.list.at(index);
  if (run === undefined) return <div class="runs-row" role="row" aria-rowindex={index + 2} style={props.style} />;
  const isHighlighted = state.scope.highlighted.value === run.run_id;
  return (
    <div
      class={isHighlighted ? "runs-row highlighted" : "runs-row"}
      role="row"
      aria-rowindex={index + 2}
      data-run={run.run_id}
      style={props.style}
      onMouseEnter={() => (state.scope.highlighted.value = run.run_id)}
      onMouseLeave={() => (state.scope.highlighted.value = null)}
    >
      <NameCell run={run} state={state} />
      {props.columns.map((path) => (
        <div key={path} class="runs-cell" role="gridcell" data-column={path}>
          {cellOf(run, path)}
        </div>
      ))}
    </div>
  );
}

function NameCell({ run, state }: { run: Run; state: ProjectState }): JSX.Element {
  const isShown = state.shown.ids.value.has(run.run_id);
  const style = isShown ? state.scope.style(run.run_id) : null;
  const name = run.name || run.run_id;
  return (
    <div class="runs-cell name-cell" role="rowheader">
      <button
        type="button"
        class="quiet eye"
        aria-pressed={isShown}
        aria-label={`Draw ${name}`}
        title={isShown ? "Drawn in the charts (double-click: only this run)" : "Not drawn"}
        onClick={() => state.shown.toggle(run.run_id)}
        onDblClick={() => state.shown.solo(run.run_id)}
      >
        <Icon name={isShown ? "eye" : "eyeOff"} />
      </button>
      <span class="swatch" style={{ background: style ? (isDark.value ? style.dark : style.light) : "transparent" }} />
      <a href={runPagePath(run.project, run.run_id)} title={`${name} (${run.run_id})`}>
        {name}
      </a>
    </div>
  );
}

/** Arrow keys go from row to row in the column that has the focus. */
function moveFocus(event: KeyboardEvent): void {
  if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
  const target = event.target as HTMLElement;
  const row = target.closest<HTMLElement>(".runs-row");
  if (row === null) return;
  const next = event.key === "ArrowDown" ? row.nextElementSibling : row.previousElementSibling;
  const selector = target.matches(".eye") ? ".eye" : "a";
  const found = next?.querySelector<HTMLElement>(selector);
  if (!found) return;
  event.preventDefault();
  found.focus();
}
