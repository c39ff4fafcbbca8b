/** Config, summary or metadata as a searchable two-column table. */

import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { flatten, formatCount, formatValue } from "../format";
import type { JsonObject } from "../types";

const LISTED = 500;

export function KeyValues({ name, values, empty }: { name: string; values: JsonObject; empty: string }): JSX.Element {
  const search = useSignal("");
  const all = flatten(values);
  if (all.length === 0) return <p class="notice">{empty}</p>;
  const needle = search.value.toLowerCase();
  const found = all.filter(([path, value]) => path.toLowerCase().includes(needle) || formatValue(value).toLowerCase().includes(needle));
  return (
    <div class="keyvalues">
      <input type="search" aria-label={`Search ${name}`} placeholder={`Search ${formatCount(all.length, "value")}`} value={search.value} onInput={(event) => (search.value = event.currentTarget.value)} />
      <table aria-label={name}>
        <tbody>
          {found.slice(0, LISTED).map(([path, value]) => (
            <tr key={path}>
              <th scope="row">{path}</th>
              <td title={typeof value === "number" ? String(value) : undefined}>{formatValue(value)}</td>
            </tr>
          ))}
        </tbody>
      </table>
      {found.length > LISTED && <p class="choice-note">and {found.length - LISTED} more: search to narrow</p>}
      {found.length === 0 && <p class="notice">Nothing matches.</p>}
    </div>
  );
}
