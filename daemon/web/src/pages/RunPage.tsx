/** One run: what it is, its live charts, everything that it said about itself. */

import type { JSX } from "preact";
import { useEffect, useMemo } from "preact/hooks";
import { Attempts } from "../components/Attempts";
import { ChartsPane } from "../components/ChartsPane";
import { KeyValues } from "../components/KeyValues";
import { LossNotice } from "../components/LossNotice";
import { RunHeader } from "../components/RunHeader";
import { Tabs } from "../components/Tabs";
import { TopBar } from "../components/TopBar";
import { WritersTable } from "../components/WritersTable";
import { projectPath, queryValue, setQuery } from "../router";
import { RunPageState } from "../state/run";
import type { JsonObject, Run } from "../types";

const TABS: [id: string, title: string][] = [
  ["charts", "Charts"],
  ["system", "System"],
  ["config", "Config"],
  ["summary", "Summary"],
  ["about", "Metadata"],
  ["delivery", "Delivery"],
];

export function RunPage({ project, runId }: { project: string; runId: string }): JSX.Element {
  const state = useMemo(() => new RunPageState(project, runId), [project, runId]);
  useEffect(() => {
    state.start();
    return () => state.stop();
  }, [state]);
  const run = state.run.value;
  useEffect(() => void (document.title = `${run?.name || runId} · ${project} · trackd`), [run?.name, runId, project]);
  const attempt = Number(queryValue("attempt")) || null;
  useEffect(() => state.show(attempt), [state, attempt]);
  const tab = TABS.some(([id]) => id === queryValue("tab")) ? queryValue("tab") : "charts";
  return (
    <>
      <TopBar>
        <a class="crumb" href={projectPath(project)} title={project}>
          {project}
        </a>
        <span class="crumb" aria-current="page">
          {run?.name || runId}
        </span>
      </TopBar>
      <main class="page run-page">
        {state.error.value && <p class="notice bad">{state.isMissing.value ? `There is no run ${runId} in ${project}.` : state.error.value}</p>}
        {run === null && !state.error.value && <p class="notice">Loading…</p>}
        {run !== null && (
          <>
            <RunHeader run={run} onEdit={(changes) => state.edit(changes)} />
            <LossNotice run={run} />
            <Attempts run={run} shown={state.attempt.value} onShow={(number) => setQuery({ attempt: number === null ? "" : String(number) })} />
            <Tabs label="Run" tabs={TABS} current={tab} onSelect={(id) => setQuery({ tab: id === "charts" ? "" : id })} />
            <div role="tabpanel" aria-label={TABS.find(([id]) => id === tab)?.[1]}>
              <TabPanel tab={tab} run={run} state={state} />
            </div>
          </>
        )}
      </main>
    </>
  );
}

function TabPanel({ tab, run, state }: { tab: string; run: Run; state: RunPageState }): JSX.Element {
  switch (tab) {
    case "system":
      return <ChartsPane key="system" scope={state.scopes.system} empty="No system metrics were recorded for this run." />;
    case "config":
      return <KeyValues name="Config" values={run.config} empty="This run has no config: pass config= to trackd.init()." />;
    case "summary":
      return <KeyValues name="Summary" values={run.summary} empty="This run has no summary yet." />;
    case "about":
      return <KeyValues name="Metadata" values={metadata(run)} empty="No metadata." />;
    case "delivery":
      return <WritersTable run={run} />;
    default:
      return (
        <ChartsPane
          key="charts"
          scope={state.scopes.default}
          empty={run.state === "running" ? "Waiting for the first number: run.log({…}) shows up here by itself." : "This run logged no numbers."}
        />
      );
  }
}

function metadata(run: Run): JsonObject {
  const { run_id, project, entity, group, job_type, user, host, attempts, rows, last_step, exit_code, cause } = run;
  return { ...run.meta, run_id, project, entity, group, job_type, user, host, attempts, rows, last_step, exit_code, cause };
}
