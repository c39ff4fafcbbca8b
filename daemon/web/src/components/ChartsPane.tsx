/** All charts of the drawn runs: toolbar, sections by prefix, one chart enlarged. */

import { useComputed, useSignal, type Signal } from "@preact/signals";
import type { ComponentChildren, JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";
import type { Range } from "../chart-model";
import { groupKeys, keySearch } from "../grouping";
import { formatCount } from "../format";
import { ChartCard } from "./ChartCard";
import { ChartSection } from "./ChartSection";
import type { ChartScope } from "./chart-scope";
import { ChartToolbar } from "./ChartToolbar";
import { Icon } from "./icons";

/** Sections opened by themselves, and sections listed before "show more". */
const OPEN_AT_FIRST = 6;
const LISTED_AT_FIRST = 100;

interface Expanded {
  key: string;
  xRange: Signal<Range | null>;
}

export function ChartsPane({ scope, empty }: { scope: ChartScope; empty: ComponentChildren }): JSX.Element {
  const toggled = useSignal<ReadonlySet<string>>(new Set());
  const listed = useSignal(LISTED_AT_FIRST);
  const expanded = useSignal<Expanded | null>(null);
  const search = useComputed(() => keySearch(scope.view.search.value));
  const sections = useComputed(() => groupKeys([...scope.index.keys.value.keys()].filter(search.value.matches)));
  const count = sections.value.reduce((sum, section) => sum + section.keys.length, 0);
  const all = scope.index.keys.value.size;

  const toggle = (name: string): void => {
    const next = new Set(toggled.value);
    if (!next.delete(name)) next.add(name);
    toggled.value = next;
  };
  return (
    <div class="charts-pane">
      <ChartToolbar scope={scope} searchError={search.value.error} matches={count} all={all} />
      {scope.index.error.value && <p class="notice bad">{scope.index.error.value}</p>}
      {all === 0 && (scope.index.isLoaded.value ? <div class="notice">{empty}</div> : <p class="notice">Loading charts…</p>)}
      {all > 0 && count === 0 && <p class="notice">No key of {formatCount(all, "key")} matches this search.</p>}
      {sections.value.slice(0, listed.value).map((section, position) => (
        <ChartSection
          key={section.name}
          section={section}
          scope={scope}
          isOpen={position < OPEN_AT_FIRST !== toggled.value.has(section.name)}
          onToggle={() => toggle(section.name)}
          onExpand={(key, xRange) => (expanded.value = { key, xRange: xRange as Signal<Range | null> })}
        />
      ))}
      {sections.value.length > listed.value && (
        <button type="button" onClick={() => (listed.value += 200)}>
          Show more of {formatCount(sections.value.length, "section")}
        </button>
      )}
      {expanded.value && <ExpandedChart {...expanded.value} name={expanded.value.key} scope={scope} onClose={() => (expanded.value = null)} />}
    </div>
  );
}

function ExpandedChart(props: { name: string; xRange: Signal<Range | null>; scope: ChartScope; onClose: () => void }): JSX.Element {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => dialog.current?.showModal(), []);
  return (
    <dialog ref={dialog} class="expanded" aria-label={props.name} onClose={props.onClose} onClick={(event) => event.target === dialog.current && dialog.current?.close()}>
      <button type="button" class="quiet dialog-close" aria-label="Close" onClick={() => dialog.current?.close()}>
        <Icon name="close" />
      </button>
      <ChartCard name={props.name} scope={props.scope} syncKey="expanded" xRange={props.xRange} height={Math.max(240, Math.round(innerHeight * 0.55))} isLarge />
    </dialog>
  );
}
