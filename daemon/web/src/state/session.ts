/** Whether this page may ask the hub. */

import { signal } from "@preact/signals";
import { api, ApiError, onUnauthorized } from "../api";

export type SessionState = "open" | "ended" | "ticket-refused";

export const session = signal<SessionState>("open");

/** Takes a link's `#ticket=…` out of the address and spends it only if there is no session yet. */
export async function startSession(): Promise<void> {
  // A link to the page that is open already only changes the fragment, and the browser loads nothing.
  addEventListener("hashchange", () => {
    if (location.hash.includes("ticket=")) location.reload();
  });
  const ticket = takeTicket();
  if (ticket !== null && !(await hasSession())) await spend(ticket);
  onUnauthorized(() => {
    if (session.value === "open") session.value = "ended";
  });
}

function takeTicket(): string | null {
  const ticket = new URLSearchParams(location.hash.slice(1)).get("ticket");
  if (ticket !== null) history.replaceState(null, "", location.pathname + location.search);
  return ticket;
}

async function hasSession(): Promise<boolean> {
  try {
    await api.hub();
    return true;
  } catch (error) {
    return !(error instanceof ApiError && error.status === 401);
  }
}

async function spend(ticket: string): Promise<void> {
  try {
    await api.openSession(ticket);
  } catch {
    session.value = "ticket-refused";
  }
}
