import { describe, expect, it } from "vitest";
import { backoff, connectEvents, SseParser, type LiveStatus, type SseEvent } from "../src/events";
import { until } from "./helpers";

const TEXT = ': hi\n\nevent: hello\ndata: {"store_id":"s"}\n\nevent: change\r\ndata: a\r\ndata: b\r\n\r\ndata:x\n\nevent: empty\n\n';
const EVENTS: SseEvent[] = [
  { event: "hello", data: '{"store_id":"s"}' },
  { event: "change", data: "a\nb" },
  { event: "message", data: "x" },
];

describe("SseParser", () => {
  it("gives the same events wherever the stream is cut", () => {
    for (let cut = 0; cut <= TEXT.length; cut += 1) {
      const parser = new SseParser();
      expect([...parser.push(TEXT.slice(0, cut)), ...parser.push(TEXT.slice(cut))]).toEqual(EVENTS);
    }
    const parser = new SseParser();
    expect([...TEXT].flatMap((letter) => parser.push(letter))).toEqual(EVENTS);
  });
});

/** A fetch that answers each call with the next of these. */
function scripted(answers: (() => Response)[]): { fetch: typeof fetch; calls: RequestInit[] } {
  const calls: RequestInit[] = [];
  const fake = (_: unknown, init: RequestInit = {}): Promise<Response> => {
    calls.push(init);
    const answer = answers.shift();
    if (answer) return Promise.resolve(answer());
    return new Promise((_resolve, reject) => init.signal?.addEventListener("abort", () => reject(new Error("aborted"))));
  };
  return { fetch: fake as typeof fetch, calls };
}

function listen(answers: (() => Response)[], silenceMs = 10_000): ReturnType<typeof start> {
  return start(answers, silenceMs);
}

function start(answers: (() => Response)[], silenceMs: number) {
  const seen: { events: SseEvent[]; statuses: LiveStatus[]; refusals: number } = { events: [], statuses: [], refusals: 0 };
  const script = scripted(answers);
  const stop = connectEvents(
    "/api/v1/events",
    {
      onEvent: (event) => seen.events.push(event),
      onStatus: (status) => seen.statuses.push(status),
      onUnauthorized: () => (seen.refusals += 1),
    },
    { headers: () => ({ "X-Trackd-Key": "k" }), fetch: script.fetch, silenceMs, backoffMs: () => 1 },
  );
  return { ...seen, seen, calls: script.calls, stop };
}

const stream = (text: string) => (): Response => new Response(text);

describe("connectEvents", () => {
  it("sends the key and comes back after the stream ends", async () => {
    const { seen, calls, stop } = listen([stream("event: hello\ndata: 1\n\n"), () => new Response("", { status: 503 }), stream("data: 2\n\n")]);
    await until(() => seen.events.length === 2);
    stop();
    expect(seen.events.map((event) => event.data)).toEqual(["1", "2"]);
    expect(calls[0]?.headers).toMatchObject({ "X-Trackd-Key": "k", Accept: "text/event-stream" });
    expect(seen.statuses).toEqual(expect.arrayContaining(["live", "offline", "connecting"]));
  });

  it("stops for good when the session is refused", async () => {
    const { seen, calls } = listen([() => new Response("", { status: 401 }), stream("data: 1\n\n")]);
    await until(() => seen.refusals === 1);
    expect(calls.length).toBe(1);
  });

  it("says stale when the hub falls silent, then tries another connection", async () => {
    const silent = (): Response => new Response(new ReadableStream({ start: (c) => c.enqueue(new TextEncoder().encode(": hi\n")) }));
    const cut = (): Response => {
      throw new Error("network");
    };
    const { seen, stop } = listen([silent, cut, stream("data: 1\n\n")], 20);
    await until(() => seen.statuses.includes("stale"));
    stop();
    expect(seen.statuses.indexOf("live")).toBeLessThan(seen.statuses.indexOf("stale"));
  });
});

describe("backoff", () => {
  it("grows to a bound, with jitter around it", () => {
    expect([1, 2, 3, 20].map((attempt) => backoff(attempt, () => 0.5))).toEqual([300, 600, 1200, 15_000]);
    expect(backoff(20, () => 1)).toBeCloseTo(19_500);
    expect(backoff(1, () => 0)).toBeCloseTo(210);
  });
});
