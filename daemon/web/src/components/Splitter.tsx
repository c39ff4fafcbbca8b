/** The movable border between table and charts. */

import type { Signal } from "@preact/signals";
import type { JSX, RefObject } from "preact";

const clamp = (share: number): number => Math.min(0.85, Math.max(0.15, share));

export function Splitter({ share, container }: { share: Signal<number>; container: RefObject<HTMLElement> }): JSX.Element {
  const move = (event: PointerEvent): void => {
    const box = container.current?.getBoundingClientRect();
    if (box && (event.target as Element).hasPointerCapture(event.pointerId)) share.value = clamp((event.clientX - box.left) / box.width);
  };
  const step = (event: KeyboardEvent): void => {
    const delta = { ArrowLeft: -0.03, ArrowRight: 0.03 }[event.key];
    if (delta === undefined) return;
    event.preventDefault();
    share.value = clamp(share.value + delta);
  };
  return (
    <div
      class="splitter"
      role="separator"
      tabIndex={0}
      aria-orientation="vertical"
      aria-label="Width of the table"
      aria-valuenow={Math.round(share.value * 100)}
      aria-valuemin={15}
      aria-valuemax={85}
      onPointerDown={(event) => event.currentTarget.setPointerCapture(event.pointerId)}
      onPointerMove={move}
      onKeyDown={step}
    />
  );
}
