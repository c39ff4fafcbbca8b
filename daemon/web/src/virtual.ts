/** Which part of a long list is on the screen. */

export interface Window {
  /** First and one past the last item to render. */
  start: number;
  end: number;
}

export function visibleWindow(
  count: number,
  itemHeight: number,
  scrollTop: number,
  viewHeight: number,
  overscan = 6,
): Window {
  const first = Math.floor(scrollTop / itemHeight) - overscan;
  const last = Math.ceil((scrollTop + viewHeight) / itemHeight) + overscan;
  const start = Math.max(0, Math.min(first, count));
  return { start, end: Math.max(start, Math.min(count, last)) };
}
