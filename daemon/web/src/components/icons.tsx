/** The few pictures of the dashboard. */

import type { JSX } from "preact";

const PATHS = {
  eye: "M1.5 8S4 3.5 8 3.5 14.5 8 14.5 8 12 12.5 8 12.5 1.5 8 1.5 8Zm6.5 2.2a2.2 2.2 0 1 0 0-4.4 2.2 2.2 0 0 0 0 4.4Z",
  eyeOff: "M2 2l12 12M6.4 6.4a2.2 2.2 0 0 0 3.1 3.1M4 4.3C2.400 5.500 1.500 8 1.500 8S4 12.500 8 12.500c1.200 0 2.200-.4 3.100-.9M6.700 3.600c.4-.1.9-.1 1.300-.1 4 0 6.500 4.500 6.500 4.500s-.5 1-1.500 2.100",
  expand: "M9.500 2.500h4v4M6.500 13.500h-4v-4M13.200 2.800 9.300 6.700M2.800 13.200l3.900-3.900",
  close: "M3.500 3.500l9 9M12.500 3.500l-9 9",
  columns: "M2.500 3.500h11v9h-11zM6.200 3.500v9M9.800 3.500v9",
  reset: "M3 8a5 5 0 1 0 1.500-3.500M3 2.500v3h3",
  sun: "M8 5a3 3 0 1 0 0 6 3 3 0 0 0 0-6ZM8 1v1.500M8 13.500V15M1 8h1.500M13.500 8H15M3 3l1.100 1.100M11.900 11.900 13 13M3 13l1.100-1.100M11.900 4.100 13 3",
  moon: "M13 9.500A5.500 5.500 0 0 1 6.500 3a5.500 5.500 0 1 0 6.500 6.500Z",
  auto: "M8 2a6 6 0 1 0 0 12A6 6 0 0 0 8 2Zm0 0v12M8 5h4.500M8 8h6M8 11h4.500",
  chevron: "M5.500 3.500 10 8l-4.500 4.500",
  search: "M7 2.500a4.500 4.500 0 1 0 0 9 4.500 4.500 0 0 0 0-9ZM10.300 10.300 14 14",
  copy: "M5.500 5.500h8v8h-8zM3 10.500H2.500v-8h8V3",
} as const;

export type IconName = keyof typeof PATHS;

/** A decorative 16 × 16 icon: its button carries the name. */
export function Icon({ name }: { name: IconName }): JSX.Element {
  return (
    <svg class="icon" viewBox="0 0 16 16" aria-hidden="true" focusable="false">
      <path d={PATHS[name]} />
    </svg>
  );
}
