/** Tabs with the arrow keys. */

import type { JSX } from "preact";

export interface TabsProps {
  label: string;
  tabs: [id: string, title: string][];
  current: string;
  onSelect(id: string): void;
}

export function Tabs({ label, tabs, current, onSelect }: TabsProps): JSX.Element {
  const onKey = (event: KeyboardEvent): void => {
    const delta = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (delta === undefined) return;
    event.preventDefault();
    const position = tabs.findIndex(([id]) => id === current);
    const next = (position + delta + tabs.length) % tabs.length;
    onSelect((tabs[next] as [string, string])[0]);
    (event.currentTarget as HTMLElement).querySelectorAll<HTMLElement>("[role=tab]")[next]?.focus();
  };
  return (
    <div class="tabs" role="tablist" aria-label={label} onKeyDown={onKey}>
      {tabs.map(([id, title]) => (
        <button key={id} type="button" role="tab" aria-selected={id === current} tabIndex={id === current ? 0 : -1} onClick={() => onSelect(id)}>
          {title}
        </button>
      ))}
    </div>
  );
}
