/** A project: its runs beside the charts that compare them. */

import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { useEffect, useMemo, useRef } from "preact/hooks";
import { ChartsPane } from "../components/ChartsPane";
import { ColumnPicker } from "../components/ColumnPicker";
import { FilterBox } from "../components/FilterBox";
import { RunsTable } from "../components/RunsTable";
import { Splitter } from "../components/Splitter";
import { Tabs } from "../components/Tabs";
import { TopBar } from "../components/TopBar";
import { formatCount, formatNumber } from "../format";
import { storedSignal } from "../state/prefs";
import { ProjectState } from "../state/project";
import { SHOWN_CHOICES } from "../state/shown-runs";

const tableShare = storedSignal("trackd_table_share", 0.45);

export function ProjectPage({ project }: { project: string }): JSX.Element {
  const state = useMemo(() => new ProjectState(project), [project]);
  const narrowTab = useSignal("charts");
  const main = useRef<HTMLElement>(null);
  useEffect(() => {
    document.title = `${project} · trackd`;
    state.start();
    return () => state.stop();
  }, [state]);
  const { list, shown } = state;
  return (
    <>
      <TopBar>
        <h1 class="crumb" title={project}>
          {project}
        </h1>
      </TopBar>
      <div class="narrow-only">
        <Tabs
          label="Part of the page"
          tabs={[
            ["runs", `Runs (${formatNumber(list.total.value)})`],
            ["charts", "Charts"],
          ]}
          current={narrowTab.value}
          onSelect={(tab) => (narrowTab.value = tab)}
        />
      </div>
      <main ref={main} class={`split narrow-${narrowTab.value}`} style={{ "--share": `${tableShare.value * 100}%` }}>
        <section class="runs-pane" aria-label="Runs">
          <FilterBox state={state} />
          <div class="runs-tools">
            <span role="status">
              {list.isLoading.value ? "Reading…" : formatCount(list.total.value, "run")}, {formatNumber(shown.runs.value.length)} drawn
            </span>
            <label>
              <span class="hidden">Draw the first</span>
              <select aria-label="Draw the first" value={shown.limit.value} onChange={(event) => (shown.limit.value = Number(event.currentTarget.value))}>
                {SHOWN_CHOICES.map((count) => (
                  <option key={count} value={count}>
                    first {count}
                  </option>
                ))}
              </select>
            </label>
            {shown.hasOverrides && (
              <button type="button" onClick={() => shown.reset()}>
                Reset eyes
              </button>
            )}
            <ColumnPicker state={state} />
          </div>
          <RunsTable state={state} />
          {!list.isLoading.value && list.total.value === 0 && !list.error.value && (
            <p class="notice">{state.where.value ? "No run matches this filter." : "This project has no runs."}</p>
          )}
        </section>
        <Splitter share={tableShare} container={main} />
        <div class="charts-column">
          <ChartsPane
            scope={state.scope}
            empty={emptyText(list.total.value, shown.runs.value.length)}
          />
        </div>
      </main>
    </>
  );
}

function emptyText(total: number, drawn: number): string {
  if (total === 0) return "There is no run to draw.";
  return drawn === 0 ? "No run is drawn: open an eye in the table." : "The drawn runs have not logged a number yet.";
}
