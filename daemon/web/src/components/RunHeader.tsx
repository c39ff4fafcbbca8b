/** Name, state, times, tags and notes of a run. */

import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { useEffect } from "preact/hooks";
import { api } from "../api";
import { formatDuration, formatNumber, formatTime } from "../format";
import type { Run } from "../types";
import { Icon } from "./icons";
import { RunState } from "./RunState";

type Edits = Partial<Pick<Run, "notes" | "tags">>;

export function RunHeader({ run, onEdit }: { run: Run; onEdit: (changes: Edits) => void }): JSX.Element {
  return (
    <header class="run-header">
      <div class="run-title">
        <h1>{run.name || run.run_id}</h1>
        <RunState run={run} />
        <CopyLink />
        <ExportMenu run={run} />
      </div>
      <dl class="facts">
        <Fact name="Id" value={run.run_id} />
        <Fact name="Started" value={formatTime(run.created_us)} />
        <Duration run={run} />
        <Fact name="Rows" value={formatNumber(run.rows)} />
        {run.user && <Fact name="By" value={[run.user, run.host].filter(Boolean).join(" on ")} />}
        {run.group && <Fact name="Group" value={run.group} />}
        {run.attempts > 1 && <Fact name="Attempts" value={String(run.attempts)} />}
        {run.cause && <Fact name={run.state === "lost contact" ? "Lost contact" : "Ended by"} value={run.cause} />}
        {run.lost_records > 0 && <Fact name="Lost records" value={formatNumber(run.lost_records)} />}
      </dl>
      {run.traceback && (
        <details class="traceback">
          <summary>Traceback</summary>
          <pre>{run.traceback}</pre>
        </details>
      )}
      <div class="run-words">
        <Editable label="Tags" value={run.tags.join(", ")} placeholder="Add tags, separated by commas" onSave={(text) => onEdit({ tags: text.split(",").map((tag) => tag.trim()).filter(Boolean) })} />
        <Editable label="Notes" value={run.notes} placeholder="Add a note" onSave={(notes) => onEdit({ notes })} />
      </div>
    </header>
  );
}

function Fact({ name, value }: { name: string; value: string }): JSX.Element {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{value}</dd>
    </div>
  );
}

/** Counts on while the run does. */
function Duration({ run }: { run: Run }): JSX.Element {
  const now = useSignal(Date.now());
  const isRunning = run.state === "running";
  useEffect(() => {
    if (!isRunning) return;
    const timer = setInterval(() => (now.value = Date.now()), 1000);
    return () => clearInterval(timer);
  }, [isRunning]);
  const seconds = isRunning ? Math.max(0, now.value / 1000 - run.created_us / 1e6) : run.duration_s;
  return <Fact name="Duration" value={formatDuration(isRunning ? Math.floor(seconds as number) : seconds)} />;
}

/** A line of text that becomes an input field; Enter saves, Escape leaves it as it was. */
function Editable(props: { label: string; value: string; placeholder: string; onSave: (text: string) => void }): JSX.Element {
  const draft = useSignal<string | null>(null);
  const save = (): void => {
    if (draft.value !== null && draft.value !== props.value) props.onSave(draft.value);
    draft.value = null;
  };
  return (
    <label class="editable">
      <span>{props.label}</span>
      <input
        value={draft.value ?? props.value}
        placeholder={props.placeholder}
        onInput={(event) => (draft.value = event.currentTarget.value)}
        onBlur={save}
        onKeyDown={(event) => {
          if (event.key === "Escape") draft.value = null;
          if (event.key === "Enter") save();
        }}
      />
    </label>
  );
}

function CopyLink(): JSX.Element {
  const isCopied = useSignal(false);
  const copy = async (): Promise<void> => {
    await navigator.clipboard.writeText(location.href);
    isCopied.value = true;
    setTimeout(() => (isCopied.value = false), 1500);
  };
  return (
    <button type="button" class="quiet" title="Copy the address of this view" aria-label="Copy link" onClick={() => void copy()}>
      <Icon name="copy" /> {isCopied.value ? "Copied" : "Link"}
    </button>
  );
}

/** Downloads go through fetch: a plain link could not carry the key. */
function ExportMenu({ run }: { run: Run }): JSX.Element {
  const error = useSignal<string | null>(null);
  const isBusy = useSignal(false);
  const save = async (format: "csv" | "jsonl" | "parquet"): Promise<void> => {
    isBusy.value = true;
    try {
      await api.download(run.project, run.run_id, format);
      error.value = null;
    } catch (problem) {
      error.value = (problem as Error).message;
    }
    isBusy.value = false;
  };
  return (
    <>
      <select
        aria-label="Download the history"
        disabled={isBusy.value}
        value=""
        onChange={(event) => {
          const format = event.currentTarget.value as "csv" | "jsonl" | "parquet";
          event.currentTarget.value = "";
          void save(format);
        }}
      >
        <option value="">{isBusy.value ? "Downloading…" : "Download"}</option>
        <option value="csv">CSV</option>
        <option value="jsonl">JSON lines</option>
        <option value="parquet">Parquet</option>
      </select>
      {error.value && <span class="bad">{error.value}</span>}
    </>
  );
}
