/** Which columns the runs table has; searchable, because a project may have thousands. */

import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { formatCount } from "../format";
import type { ProjectState } from "../state/project";
import { RUN_COLUMNS } from "./run-cells";
import { Icon } from "./icons";

const LISTED = 200;

interface Choice {
  path: string;
  note: string;
}

export function ColumnPicker({ state }: { state: ProjectState }): JSX.Element {
  const isOpen = useSignal(false);
  const search = useSignal("");
  const root = useRef<HTMLDivElement>(null);

  useEffect(() => {
    if (!isOpen.value) return;
    root.current?.querySelector("input")?.focus();
    const onPointer = (event: PointerEvent): void => {
      if (!root.current?.contains(event.target as Node)) isOpen.value = false;
    };
    document.addEventListener("pointerdown", onPointer);
    return () => document.removeEventListener("pointerdown", onPointer);
  }, [isOpen.value]);

  return (
    <div
      class="picker"
      ref={root}
      onKeyDown={(event) => {
        if (event.key !== "Escape" || !isOpen.value) return;
        isOpen.value = false;
        root.current?.querySelector("button")?.focus();
      }}
    >
      <button type="button" aria-expanded={isOpen.value} onClick={() => (isOpen.value = !isOpen.value)}>
        <Icon name="columns" /> Columns
      </button>
      {isOpen.value && (
        <div class="popover" role="group" aria-label="Columns of the table">
          <input type="search" aria-label="Search columns" placeholder="Search columns" value={search.value} onInput={(event) => (search.value = event.currentTarget.value)} />
          <Choices state={state} search={search.value} />
          <button type="button" onClick={() => state.setColumns(null)}>
            Back to the usual columns
          </button>
        </div>
      )}
    </div>
  );
}

function Choices({ state, search }: { state: ProjectState; search: string }): JSX.Element {
  const chosen = state.columns.value;
  const needle = search.toLowerCase();
  const all: Choice[] = [
    ...RUN_COLUMNS.map((path) => ({ path, note: "" })),
    ...state.catalogue.value.filter((column) => column.kind !== "run").map((column) => ({ path: column.path, note: `${column.type}, ${formatCount(column.runs, "run")}` })),
  ];
  const found = all.filter((choice) => choice.path.toLowerCase().includes(needle));
  const toggle = (path: string): void => state.setColumns(chosen.includes(path) ? chosen.filter((other) => other !== path) : [...chosen, path]);
  return (
    <ul class="choices">
      {found.slice(0, LISTED).map(({ path, note }) => (
        <li key={path}>
          <label>
            <input type="checkbox" checked={chosen.includes(path)} onChange={() => toggle(path)} />
            <span class="choice-path">{path}</span>
            <span class="choice-note">{note}</span>
          </label>
        </li>
      ))}
      {found.length > LISTED && <li class="choice-note">and {found.length - LISTED} more: search to narrow</li>}
      {found.length === 0 && <li class="choice-note">No column matches</li>}
    </ul>
  );
}
