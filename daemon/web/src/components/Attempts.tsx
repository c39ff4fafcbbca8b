/** How often a run was begun, and which of these attempts the charts show. */

import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { useEffect } from "preact/hooks";
import { api } from "../api";
import { formatCount, formatNumber, formatTime } from "../format";
import { runPagePath } from "../router";
import type { Attempt, Run } from "../types";
import { RunState } from "./RunState";

interface Props {
  run: Run;
  shown: number | null;
  onShow(attempt: number | null): void;
}

export function Attempts({ run, shown, onShow }: Props): JSX.Element | null {
  const attempts = useSignal<Attempt[]>([]);
  const error = useSignal<string | null>(null);
  useEffect(() => {
    let isGone = false;
    api.attempts(run.project, run.run_id).then(
      (found) => {
        if (isGone) return;
        attempts.value = found;
        error.value = null;
      },
      (problem: Error) => (error.value = problem.message),
    );
    return () => void (isGone = true);
  }, [run.project, run.run_id, run.attempts, run.state, run.ended_us]);
  if (error.value) return <p class="notice bad">{error.value}</p>;
  const chosen = attempts.value.find((attempt) => attempt.number === shown);
  const origin = attempts.value.find((attempt) => attempt.from_run !== null);
  if (attempts.value.length < 2 && origin === undefined) return null;
  return (
    <section class="attempts" aria-label="Attempts">
      {origin && (
        <p>
          Forked from <a href={runPagePath(run.project, origin.from_run as string)}>{origin.from_run}</a>, whose rows are shown up to step{" "}
          {formatNumber(origin.from_step ?? 0)}.
        </p>
      )}
      {attempts.value.length > 1 && (
        <label>
          Show{" "}
          <select aria-label="Attempt" value={shown ?? ""} onChange={(event) => onShow(Number(event.currentTarget.value) || null)}>
            <option value="">one curve of {formatCount(attempts.value.length, "attempt")}</option>
            {attempts.value.map((attempt) => (
              <option key={attempt.number} value={attempt.number}>
                attempt {attempt.number}: {steps(attempt)}, {attempt.state}
              </option>
            ))}
          </select>
        </label>
      )}
      {chosen && (
        <p>
          <RunState run={chosen} /> {[chosen.cause, `began ${formatTime(chosen.started_us)}`, chosen.host && `on ${chosen.host}`].filter(Boolean).join(", ")}.{" "}
          {chosen.superseded_from !== null && `On the run's curve a later attempt replaces it from step ${formatNumber(chosen.superseded_from)} on.`}
        </p>
      )}
    </section>
  );
}

function steps({ first_step, last_step }: Attempt): string {
  return first_step === null ? "no rows" : `steps ${formatNumber(first_step)} to ${formatNumber(last_step ?? first_step)}`;
}
