/** What to do when the hub does not know this browser. */

import type { JSX } from "preact";
import { TopBar } from "../components/TopBar";
import type { SessionState } from "../state/session";

export function EndedPage({ reason }: { reason: Exclude<SessionState, "open"> }): JSX.Element {
  return (
    <>
      <TopBar />
      <main class="page">
        <section class="started">
          <h1>{reason === "ended" ? "Session ended" : "This link was used or is too old"}</h1>
          <p>
            Run <code>trackd open</code> in a terminal of the machine and account that the hub runs on, and follow the link that it prints. A link works once, within 15 minutes.
          </p>
        </section>
      </main>
    </>
  );
}
