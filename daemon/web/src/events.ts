/** Server-sent events over fetch (EventSource cannot send the key header), with back-off and a staleness watch. */

export interface SseEvent {
  event: string;
  data: string;
}

/** Splits a text stream into events; comments (`: …`) are only signs of life. */
export class SseParser {
  #rest = "";
  #event = "";
  #data: string[] = [];

  push(text: string): SseEvent[] {
    const events: SseEvent[] = [];
    const lines = (this.#rest + text).split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop() ?? "";
    for (const line of lines) this.#line(line, events);
    return events;
  }

  #line(line: string, events: SseEvent[]): void {
    if (line === "") {
      if (this.#data.length > 0) events.push({ event: this.#event || "message", data: this.#data.join("\n") });
      this.#event = "";
      this.#data = [];
      return;
    }
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "event") this.#event = value;
    else if (name === "data") this.#data.push(value);
  }
}

export type LiveStatus = "connecting" | "live" | "stale" | "offline";

export interface EventHandlers {
  onEvent(event: SseEvent): void;
  onStatus(status: LiveStatus): void;
  /** The hub refused the session: no further attempts. */
  onUnauthorized(): void;
}

export interface EventOptions {
  headers: () => Record<string, string>;
  fetch?: typeof fetch;
  /** The hub sends a comment every 15 s: longer silence means a dead connection. */
  silenceMs?: number;
  /** Delay before attempt n (1, 2, …) after a failure. */
  backoffMs?: (attempt: number) => number;
}

/** 0.3 s, 0.6 s, … up to 15 s, with jitter so that many tabs do not come back at once. */
export function backoff(attempt: number, random: () => number = Math.random): number {
  return Math.min(15_000, 300 * 2 ** (attempt - 1)) * (0.7 + 0.6 * random());
}

/** Reads events from `url` for ever; the returned function ends it. */
export function connectEvents(url: string, handlers: EventHandlers, options: EventOptions): () => void {
  const stop = new AbortController();
  void readForever(url, handlers, options, stop.signal);
  return () => stop.abort();
}

async function readForever(url: string, handlers: EventHandlers, options: EventOptions, stop: AbortSignal): Promise<void> {
  const delay = options.backoffMs ?? backoff;
  for (let attempt = 1; !stop.aborted; attempt += 1) {
    const outcome = await readOnce(url, handlers, options, stop);
    if (stop.aborted) return;
    if (outcome === "unauthorized") return handlers.onUnauthorized();
    if (outcome === "had-events") attempt = 1;
    handlers.onStatus("offline");
    await pause(delay(attempt), stop);
    if (!stop.aborted) handlers.onStatus("connecting");
  }
}

async function readOnce(
  url: string,
  handlers: EventHandlers,
  options: EventOptions,
  stop: AbortSignal,
): Promise<"unauthorized" | "had-events" | "failed"> {
  const attempt = new AbortController();
  const end = (): void => attempt.abort();
  stop.addEventListener("abort", end);
  const watch = new SilenceWatch(options.silenceMs ?? 20_000, () => handlers.onStatus("stale"), end);
  let hadEvents = false;
  try {
    const response = await (options.fetch ?? fetch)(url, {
      headers: { ...options.headers(), Accept: "text/event-stream" },
      credentials: "same-origin",
      cache: "no-store",
      signal: attempt.signal,
    });
    if (response.status === 401) return "unauthorized";
    if (!response.ok || response.body === null) return "failed";
    const parser = new SseParser();
    const text = new TextDecoder();
    const reader = response.body.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      watch.heard();
      handlers.onStatus("live");
      for (const event of parser.push(text.decode(value, { stream: true }))) {
        hadEvents = true;
        handlers.onEvent(event);
      }
    }
  } catch {
    // A broken connection and an ended attempt look the same: try again.
  } finally {
    watch.stop();
    stop.removeEventListener("abort", end);
  }
  return hadEvents ? "had-events" : "failed";
}

/** Says "stale" after one silence, gives the connection up after two. */
class SilenceWatch {
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(
    private readonly silenceMs: number,
    private readonly onStale: () => void,
    private readonly onDead: () => void,
  ) {
    this.heard();
  }

  heard(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.onStale();
      this.#timer = setTimeout(this.onDead, this.silenceMs);
    }, this.silenceMs);
  }

  stop(): void {
    clearTimeout(this.#timer);
  }
}

function pause(ms: number, stop: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    stop.addEventListener("abort", () => {
      clearTimeout(timer);
      resolve();
    });
  });
}
