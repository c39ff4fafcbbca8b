/** Where one is, whether the page is live, light or dark. */

import { useSignal } from "@preact/signals";
import type { ComponentChildren, JSX } from "preact";
import { useEffect } from "preact/hooks";
import { formatDuration } from "../format";
import { lastChangeMs, liveStatus, paintLagMs } from "../state/live";
import { session } from "../state/session";
import { themeChoice, type ThemeChoice } from "../state/prefs";
import { Icon, type IconName } from "./icons";

export function TopBar({ children }: { children?: ComponentChildren }): JSX.Element {
  return (
    <header class="topbar">
      <nav aria-label="Breadcrumb" class="crumbs">
        <a href="/" class="brand">
          trackd
        </a>
        {children}
      </nav>
      {session.value === "open" && <LiveBadge />}
      <ThemeButton />
    </header>
  );
}

const STATUS = {
  live: ["Live", "Changes are pushed to this page as they are stored"],
  connecting: ["Connecting", "Connecting to the hub"],
  stale: ["Stale", "The hub has been silent for too long: what is shown may be old"],
  offline: ["Offline", "No connection to the hub: what is shown may be old; trying again"],
} as const;

function LiveBadge(): JSX.Element {
  const now = useSignal(Date.now());
  useEffect(() => {
    const timer = setInterval(() => (now.value = Date.now()), 1000);
    return () => clearInterval(timer);
  }, []);
  const [word, title] = STATUS[liveStatus.value];
  const last = lastChangeMs.value;
  const age = last === null ? "" : `last change ${formatDuration(Math.max(0, Math.round((now.value - last) / 1000)))} ago`;
  const lag = paintLagMs.value === null ? "" : `drawn ${Math.round(paintLagMs.value)} ms after it arrived`;
  return (
    <span class={`badge badge-${liveStatus.value}`} role="status" title={[title, age, lag].filter(Boolean).join("; ")}>
      <span class="dot" aria-hidden="true" />
      {word}
      {liveStatus.value === "live" && paintLagMs.value !== null && <span class="lag">{Math.round(paintLagMs.value)} ms</span>}
    </span>
  );
}

const THEMES: Record<ThemeChoice, { next: ThemeChoice; icon: IconName; label: string }> = {
  auto: { next: "light", icon: "auto", label: "Theme: as the system" },
  light: { next: "dark", icon: "sun", label: "Theme: light" },
  dark: { next: "auto", icon: "moon", label: "Theme: dark" },
};

function ThemeButton(): JSX.Element {
  const { next, icon, label } = THEMES[themeChoice.value];
  return (
    <button type="button" class="quiet" aria-label={`${label}. Change it`} title={label} onClick={() => (themeChoice.value = next)}>
      <Icon name={icon} />
    </button>
  );
}
