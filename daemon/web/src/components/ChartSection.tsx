/** The charts of one key prefix: collapsible, and mounted only near the screen. */

import { signal, useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { useEffect, useMemo, useRef } from "preact/hooks";
import type { Range } from "../chart-model";
import type { Section } from "../grouping";
import { ChartCard } from "./ChartCard";
import type { ChartScope } from "./chart-scope";
import { Icon } from "./icons";

const GAP = 12;
const MIN_CARD = 300;
const PLOT_HEIGHT = 190;
const CARD_HEIGHT = PLOT_HEIGHT + 66;
const ROWS_PER_BLOCK = 3;

let sections = 0;

export interface ChartSectionProps {
  section: Section;
  scope: ChartScope;
  isOpen: boolean;
  onToggle(): void;
  onExpand(key: string, xRange: ReturnType<typeof signal<Range | null>>): void;
}

export function ChartSection({ section, scope, isOpen, onToggle, onExpand }: ChartSectionProps): JSX.Element {
  const syncKey = useMemo(() => `section-${(sections += 1)}`, []);
  const xRange = useMemo(() => signal<Range | null>(null), []);
  const grid = useRef<HTMLDivElement>(null);
  const columns = useSignal(1);

  // A range of steps means nothing on another axis.
  const axis = scope.view.xAxis.value;
  useEffect(() => void (xRange.value = null), [axis]);

  useEffect(() => {
    if (!isOpen || grid.current === null) return;
    const root = grid.current;
    const measure = (): void => void (columns.value = Math.max(1, Math.floor((root.clientWidth + GAP) / (MIN_CARD + GAP))));
    measure();
    const watcher = new ResizeObserver(measure);
    watcher.observe(root);
    return () => watcher.disconnect();
  }, [isOpen]);

  const perBlock = columns.value * ROWS_PER_BLOCK;
  const blocks: string[][] = [];
  if (isOpen) for (let start = 0; start < section.keys.length; start += perBlock) blocks.push(section.keys.slice(start, start + perBlock));
  return (
    <section class="chart-section" aria-label={`Charts of ${section.name}`}>
      <h2>
        <button type="button" class="section-toggle" aria-expanded={isOpen} onClick={onToggle}>
          <Icon name="chevron" />
          <span>{section.name}</span>
          <span class="count">{section.keys.length}</span>
        </button>
      </h2>
      {isOpen && (
        <div ref={grid}>
          {blocks.map((keys) => (
            <Block key={keys[0]} keys={keys} columns={columns.value}>
              {(key) => (
                <ChartCard
                  key={key}
                  name={key}
                  scope={scope}
                  syncKey={syncKey}
                  xRange={xRange}
                  height={PLOT_HEIGHT}
                  onExpand={() => onExpand(key, xRange)}
                />
              )}
            </Block>
          ))}
        </div>
      )}
    </section>
  );
}

/** A few rows of charts; away from the screen only their height. */
function Block(props: { keys: string[]; columns: number; children: (key: string) => JSX.Element }): JSX.Element {
  const root = useRef<HTMLDivElement>(null);
  const isNear = useSignal(false);
  useEffect(() => {
    const block = root.current as HTMLDivElement;
    const watcher = new IntersectionObserver((entries) => void (isNear.value = entries.at(-1)?.isIntersecting ?? false), {
      // The margin counts only at the box that scrolls: the charts' column, or the page where there is none.
      root: block.closest(".charts-column"),
      rootMargin: "250px 0px",
    });
    watcher.observe(block);
    return () => watcher.disconnect();
  }, []);
  const rows = Math.ceil(props.keys.length / props.columns);
  const style = { height: `${rows * (CARD_HEIGHT + GAP)}px`, gridTemplateColumns: `repeat(${props.columns}, minmax(0, 1fr))`, gridAutoRows: `${CARD_HEIGHT}px` };
  return (
    <div ref={root} class="chart-block" style={style}>
      {isNear.value && props.keys.map(props.children)}
    </div>
  );
}
