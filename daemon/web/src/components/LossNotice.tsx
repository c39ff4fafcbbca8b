/** Says plainly that records of a run are lost, and why; nothing for a run that is whole. */

import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { useEffect } from "preact/hooks";
import { api } from "../api";
import { formatNumber } from "../format";
import { setQuery } from "../router";
import type { Run } from "../types";

const REASONS: Record<string, string> = {
  full: "there was no space to keep them",
  damaged: "a disk gave them back damaged",
  trimmed: "their sender no longer had them",
  rejected: "they could not be read",
  restored: "this hub was restored from a backup",
  policy: "thinned out to save space",
};

export function LossNotice({ run }: { run: Run }): JSX.Element | null {
  const counts = useSignal<[reason: string, count: number][]>([]);
  useEffect(() => {
    if (run.lost_records === 0) return;
    let isGone = false;
    api.writers(run.project, run.run_id).then(
      (writers) => {
        const sums = new Map<string, number>();
        for (const loss of writers.flatMap((writer) => writer.losses)) sums.set(loss.reason, (sums.get(loss.reason) ?? 0) + loss.count);
        if (!isGone) counts.value = [...sums];
      },
      () => undefined, // the number alone is said then
    );
    return () => void (isGone = true);
  }, [run.project, run.run_id, run.lost_records]);
  if (run.lost_records === 0) return null;
  const reasons = counts.value.map(([reason, count]) => (counts.value.length > 1 ? `${formatNumber(count)}: ` : "") + (REASONS[reason] ?? reason));
  return (
    <p class="notice loss" role="status">
      <strong>
        {formatNumber(run.lost_records)} {run.lost_records === 1 ? "record" : "records"} lost
      </strong>
      {reasons.length > 0 && `: ${reasons.join("; ")}`}.{" "}
      <button type="button" class="link" onClick={() => setQuery({ tab: "delivery" })}>
        Which
      </button>
    </p>
  );
}
