/** All projects, newest activity first. */

import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { useEffect } from "preact/hooks";
import { api } from "../api";
import { GettingStarted } from "../components/GettingStarted";
import { TopBar } from "../components/TopBar";
import { formatAgo, formatCount, formatTime } from "../format";
import { projectPath } from "../router";
import { followLive } from "../state/live";
import { Throttle } from "../state/throttle";
import type { Project } from "../types";

export function ProjectsPage(): JSX.Element {
  const projects = useSignal<Project[] | null>(null);
  const error = useSignal<string | null>(null);
  const warnings = useSignal<string[]>([]);
  const now = useSignal(Date.now());
  useEffect(() => {
    document.title = "trackd";
    const read = new Throttle(async () => {
      try {
        projects.value = await api.projects();
        warnings.value = (await api.hub()).warnings;
        error.value = null;
      } catch (problem) {
        error.value = (problem as Error).message;
      }
      now.value = Date.now();
    }, 1000);
    read.request();
    const end = followLive({}, { onChange: () => read.request(), onResync: () => read.request() });
    const timer = setInterval(() => (now.value = Date.now()), 30_000);
    return () => {
      end();
      read.stop();
      clearInterval(timer);
    };
  }, []);
  return (
    <>
      <TopBar />
      <main class="page">
        <h1>Projects</h1>
        {error.value && <p class="notice bad">{error.value}</p>}
        {warnings.value.map((warning) => (
          <p key={warning} class="notice warn">
            {warning}
          </p>
        ))}
        {projects.value === null && !error.value && <p class="notice">Loading…</p>}
        {projects.value?.length === 0 && <GettingStarted />}
        <ul class="projects">
          {projects.value?.map((project) => (
            <li key={project.name} class="card">
              <a href={projectPath(project.name)}>
                <span class="project-name">{project.name}</span>
                {project.live > 0 && <span class="badge badge-live">{formatNumberLive(project.live)}</span>}
                <span class="project-facts">
                  {formatCount(project.runs, "run")}
                  <span title={formatTime(project.updated_us)}>active {formatAgo(project.updated_us, now.value)}</span>
                </span>
              </a>
            </li>
          ))}
        </ul>
      </main>
    </>
  );
}

const formatNumberLive = (count: number): string => `${count} running`;
