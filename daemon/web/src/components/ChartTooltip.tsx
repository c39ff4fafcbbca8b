/** The values under the pointer, nearest run first. */

import type { JSX } from "preact";
import { describeFlags } from "../chart-model";
import type { Hover } from "../chart-view";
import { formatDuration, formatNumber, formatTime } from "../format";

const ROWS = 12;
const WIDTH = 280;

export function formatX(xAxis: string, x: number): string {
  if (xAxis === "_step") return `step ${formatNumber(x)}`;
  if (xAxis === "_relative") return formatDuration(x) || formatNumber(x);
  if (xAxis === "_timestamp") return formatTime(x * 1e6);
  return `${xAxis} ${formatNumber(x)}`;
}

export function ChartTooltip({ hover, xAxis, width }: { hover: Hover; xAxis: string; width: number }): JSX.Element {
  const isRight = hover.left + WIDTH + 24 > width && hover.left > width / 2;
  const style = isRight ? { right: `${width - hover.left + 12}px`, top: "8px" } : { left: `${hover.left + 12}px`, top: "8px" };
  const [nearest] = hover.rows;
  return (
    <div class="tooltip" style={style} aria-hidden="true">
      <div class="tooltip-x">{formatX(xAxis, nearest?.x ?? hover.x)}</div>
      {hover.rows.slice(0, ROWS).map((row, position) => {
        const { series, colour, name, isSmoothed, runId } = row.line;
        const count = series.count[row.index] as number;
        const flags = series.flags[row.index] as number;
        return (
          <div key={runId} class={position === 0 ? "tooltip-row nearest" : "tooltip-row"}>
            <span class="swatch" style={{ background: colour }} />
            <span class="tooltip-name">{name}</span>
            <span class="tooltip-value">{formatNumber(row.value)}</span>
            {isSmoothed && <span class="tooltip-raw">raw {formatNumber(series.last[row.index] as number)}</span>}
            {count > 1 && (
              <span class="tooltip-raw">
                {formatNumber(series.min[row.index] as number)} … {formatNumber(series.max[row.index] as number)}
              </span>
            )}
            {flags > 0 && <span class="tooltip-flag">{describeFlags(flags)}</span>}
          </div>
        );
      })}
      {hover.rows.length > ROWS && <div class="tooltip-more">and {hover.rows.length - ROWS} more runs</div>}
    </div>
  );
}
