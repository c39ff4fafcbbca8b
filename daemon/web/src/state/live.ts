/** The pushed changes of the hub: one connection per page, many listeners. */

import { signal } from "@preact/signals";
import { authHeaders, buildUrl } from "../api";
import { connectEvents, type LiveStatus, type SseEvent } from "../events";
import type { Change } from "../types";
import { session } from "./session";

export const liveStatus = signal<LiveStatus>("connecting");
/** When the hub was last heard from (ms). */
export const lastChangeMs = signal<number | null>(null);
/** From a change's arrival to its pixels (ms), of the latest drawn change. */
export const paintLagMs = signal<number | null>(null);

export interface LiveListener {
  onChange(change: Change): void;
  /** Changes may have been missed: read again what is shown. */
  onResync(): void;
}

/** Follows the changes of a project or run (or of everything); the returned function ends it. */
export function followLive(scope: { project?: string; run?: string }, listener: LiveListener): () => void {
  liveStatus.value = "connecting";
  let hellos = 0;
  const onEvent = (event: SseEvent): void => {
    if (event.event === "hello") {
      hellos += 1;
      if (hellos > 1) listener.onResync();
    } else if (event.event === "change") {
      lastChangeMs.value = Date.now();
      listener.onChange(JSON.parse(event.data) as Change);
    }
  };
  return connectEvents(
    buildUrl("/api/v1/events", scope),
    {
      onEvent,
      onStatus: (status) => (liveStatus.value = status),
      onUnauthorized: () => (session.value = "ended"),
    },
    { headers: authHeaders },
  );
}
