/** The text filter over runs; a mistake is shown where it is. */

import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { useEffect } from "preact/hooks";
import type { ProjectState } from "../state/project";

const TYPING_PAUSE_MS = 350;

export function FilterBox({ state }: { state: ProjectState }): JSX.Element {
  const text = useSignal(state.where.value);
  useEffect(() => void (text.value = state.where.value), [state.where.value]);
  useEffect(() => {
    if (text.value === state.where.value) return;
    const timer = setTimeout(() => state.setWhere(text.value), TYPING_PAUSE_MS);
    return () => clearTimeout(timer);
  }, [text.value]);
  const error = state.list.error.value;
  const isMistake = error !== null && text.value === state.where.value && text.value !== "";
  return (
    <form
      class="filter"
      role="search"
      onSubmit={(event) => {
        event.preventDefault();
        state.setWhere(text.value);
      }}
    >
      <label>
        <span class="hidden">Filter runs</span>
        <input
          type="search"
          placeholder="Filter: config.lr < 0.01 and state = running"
          spellcheck={false}
          autocapitalize="off"
          autocomplete="off"
          list="filter-paths"
          value={text.value}
          aria-invalid={isMistake}
          aria-describedby={error ? "filter-error" : undefined}
          onInput={(event) => (text.value = event.currentTarget.value)}
        />
      </label>
      {error && (
        <div id="filter-error" class="filter-error" role="alert">
          {isMistake && error.position !== null && <Mistake text={text.value} position={error.position} />}
          <span>{error.message}</span>
        </div>
      )}
    </form>
  );
}

function Mistake({ text, position }: { text: string; position: number }): JSX.Element {
  const at = Math.min(position, text.length);
  return (
    <code>
      {text.slice(0, at)}
      <mark>{text.slice(at) || "␣"}</mark>
    </code>
  );
}
