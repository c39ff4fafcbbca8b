/** What each writer of a run sent and what the hub holds: the account of delivery. */

import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { useEffect } from "preact/hooks";
import { api } from "../api";
import { formatNumber } from "../format";
import type { Run, Writer } from "../types";

export function WritersTable({ run }: { run: Run }): JSX.Element {
  const writers = useSignal<Writer[] | null>(null);
  const error = useSignal<string | null>(null);
  useEffect(() => {
    api.writers(run.project, run.run_id).then(
      (found) => (writers.value = found),
      (problem: Error) => (error.value = problem.message),
    );
  }, [run.project, run.run_id, run.version]);
  if (error.value) return <p class="notice bad">{error.value}</p>;
  return (
    <div class="keyvalues">
      <p class="notice">{run.lost_records === 0 ? "Every record that was sent is stored: none lost." : `${formatNumber(run.lost_records)} records were declared lost.`}</p>
      <table aria-label="Writers">
        <thead>
          <tr>
            {["writer", "role", "process", "host", "records", "losses"].map((title) => (
              <th key={title} scope="col">
                {title}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {writers.value?.map((writer) => (
            <tr key={writer.writer_id}>
              <th scope="row">
                <code>{writer.writer_id.slice(-12)}</code>
              </th>
              <td>{writer.role}</td>
              <td>{writer.pid ?? ""}</td>
              <td>{writer.host}</td>
              <td>{formatNumber(writer.records)}</td>
              <td>{writer.losses.map((loss) => `${formatNumber(loss.count)} from ${formatNumber(loss.first_seq)} (${loss.reason})`).join("; ") || "none"}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
