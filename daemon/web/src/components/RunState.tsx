/** A run's state: word, shape and colour, never colour alone. */

import type { JSX } from "preact";
import type { Run, RunState as State } from "../types";

const SHAPES: Record<State, string> = {
  running: "▶",
  finished: "✓",
  failed: "✕",
  killed: "■",
  crashed: "✕",
  preempted: "⏸",
  "lost contact": "?",
};

export function RunState({ run }: { run: Pick<Run, "state" | "exit_code" | "cause"> }): JSX.Element {
  const details = [run.cause, run.exit_code ? `exit code ${run.exit_code}` : ""].filter(Boolean).join(", ");
  return (
    <span class={`state state-${run.state.replace(" ", "-")}`} title={details || run.state}>
      <span aria-hidden="true">{SHAPES[run.state] ?? "·"}</span> {run.state}
    </span>
  );
}
