/** Picks the page of the address. */

import type { JSX } from "preact";
import { useEffect } from "preact/hooks";
import { TopBar } from "./components/TopBar";
import { EndedPage } from "./pages/EndedPage";
import { ProjectPage } from "./pages/ProjectPage";
import { ProjectsPage } from "./pages/ProjectsPage";
import { RunPage } from "./pages/RunPage";
import { route } from "./router";
import { session } from "./state/session";

export function App(): JSX.Element {
  useEffect(() => {
    addEventListener("keydown", focusSearch);
    return () => removeEventListener("keydown", focusSearch);
  }, []);
  if (session.value !== "open") return <EndedPage reason={session.value} />;
  const here = route.value;
  switch (here.page) {
    case "projects":
      return <ProjectsPage />;
    case "project":
      return <ProjectPage key={here.project} project={here.project} />;
    case "run":
      return <RunPage key={`${here.project}\n${here.run}`} project={here.project} runId={here.run} />;
    case "unknown":
      return (
        <>
          <TopBar />
          <main class="page">
            <p class="notice">
              There is no page {here.path}. <a href="/">All projects</a>
            </p>
          </main>
        </>
      );
  }
}

/** "/" goes to the search of the page. */
function focusSearch(event: KeyboardEvent): void {
  const target = event.target as HTMLElement;
  if (event.key !== "/" || event.ctrlKey || event.metaKey || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName)) return;
  const search = document.querySelector<HTMLElement>("[data-shortcut='/']");
  if (search === null) return;
  event.preventDefault();
  search.focus();
}
