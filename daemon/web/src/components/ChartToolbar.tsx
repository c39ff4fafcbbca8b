/** How the charts of a page are shown. */

import type { JSX } from "preact";
import { formatNumber } from "../format";
import type { ChartScope } from "./chart-scope";
import { Icon } from "./icons";

const AXES: [value: string, label: string][] = [
  ["_step", "Step"],
  ["_relative", "Relative time"],
  ["_timestamp", "Wall time"],
];
const METRIC_CHOICES = 200;

export function ChartToolbar(props: { scope: ChartScope; searchError: string | null; matches: number; all: number }): JSX.Element {
  const { view, index } = props.scope;
  const metrics = [...index.keys.value.keys()].slice(0, METRIC_CHOICES);
  const axis = view.xAxis.value;
  return (
    <div class="toolbar" role="toolbar" aria-label="Charts">
      <label class="search">
        <Icon name="search" />
        <span class="hidden">Search metrics by regular expression</span>
        <input
          type="search"
          data-shortcut="/"
          placeholder="Search metrics (regex)"
          spellcheck={false}
          value={view.search.value}
          aria-invalid={props.searchError !== null}
          title={props.searchError ?? "Press / to search"}
          onInput={(event) => (view.search.value = event.currentTarget.value)}
          onChange={() => view.commit()}
        />
      </label>
      <span class="count" role="status">
        {props.matches === props.all ? formatNumber(props.all) : `${formatNumber(props.matches)} of ${formatNumber(props.all)}`}
      </span>
      <label>
        <span>X</span>
        <select value={axis} onChange={(event) => view.setXAxis(event.currentTarget.value)} aria-label="X axis">
          {AXES.map(([value, label]) => (
            <option key={value} value={value}>
              {label}
            </option>
          ))}
          {!axis.startsWith("_") && !metrics.includes(axis) && <option value={axis}>{axis}</option>}
          {metrics.length > 0 && (
            <optgroup label="Metric">
              {metrics.map((key) => (
                <option key={key} value={key}>
                  {key}
                </option>
              ))}
            </optgroup>
          )}
        </select>
      </label>
      <label class="check">
        <input type="checkbox" checked={view.isLog.value} onChange={(event) => view.setLog(event.currentTarget.checked)} />
        <span>Log y</span>
      </label>
      <label class="smooth">
        <span>Smooth</span>
        <input
          type="range"
          min="0"
          max="0.99"
          step="0.01"
          aria-label="Smoothing"
          value={view.smoothing.value}
          onInput={(event) => (view.smoothing.value = Number(event.currentTarget.value))}
          onChange={() => view.commit()}
        />
        <output>{view.smoothing.value.toFixed(2)}</output>
      </label>
    </div>
  );
}
