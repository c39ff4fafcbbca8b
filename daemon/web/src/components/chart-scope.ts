/** What all charts of a page share. */

import type { ReadonlySignal, Signal } from "@preact/signals";
import type { RunStyle } from "../palette";
import type { ChartStore } from "../state/chart-store";
import type { KeyIndex } from "../state/key-index";
import type { ChartViewState } from "../state/view";
import type { Run, Stream } from "../types";

export interface ChartScope {
  store: ChartStore;
  index: KeyIndex;
  stream: Stream;
  /** The drawn runs, in the list's order. */
  runs: ReadonlySignal<readonly Run[]>;
  style(runId: string): RunStyle;
  /** The run that stands out, pointed at in a chart or in the table. */
  highlighted: Signal<string | null>;
  view: ChartViewState;
}
