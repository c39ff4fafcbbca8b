import { describe, expect, it } from "vitest";
import { KeyIndex } from "../src/state/key-index";
import type { Change, KeyInfo, RunRef } from "../src/types";
import { until } from "./helpers";

class FakeHub {
  readonly asked: string[] = [];
  keys: Record<string, string[]> = { a: ["loss", "acc"], b: ["loss"] };
  isBroken = false;

  ask = async (_: string, run: string): Promise<KeyInfo[]> => {
    this.asked.push(run);
    await Promise.resolve();
    if (this.isBroken) throw new Error("the hub is away");
    const infos = (this.keys[run] ?? []).map((key) => ({ key, type: "number", count: 1, last: 0, last_step: 0, min: 0, max: 0 }) as KeyInfo);
    return [...infos, { key: "text", type: "other", count: 1, last: "x", last_step: 0, min: null, max: null }];
  };
}

const A: RunRef = ["p", "a"];
const B: RunRef = ["p", "b"];
const change = (run_id: string, keys: string[], has_more_keys = false): Change => ({
  project: "p",
  run_id,
  version: 1,
  keys,
  has_more_keys,
  last: {},
  fields: [],
});
const found = (index: KeyIndex): Record<string, string[]> => Object.fromEntries([...index.keys.value].map(([key, runs]) => [key, [...runs]]));

describe("KeyIndex", () => {
  it("knows which drawn runs have which number", async () => {
    const hub = new FakeHub();
    const index = new KeyIndex(hub.ask);
    index.setRuns([A, B]);
    await until(() => index.isLoaded.value);
    expect(found(index)).toEqual({ loss: ["a", "b"], acc: ["a"] });
    index.setRuns([B]);
    expect(found(index)).toEqual({ loss: ["b"] });
  });

  it("asks once per run, however often the drawn runs are said again", async () => {
    const hub = new FakeHub();
    const index = new KeyIndex(hub.ask);
    for (let turn = 0; turn < 5; turn += 1) index.setRuns([A, B]);
    await until(() => index.isLoaded.value && index.keys.value.size === 2);
    index.setRuns([B, A]);
    expect(hub.asked.sort()).toEqual(["a", "b"]);
  });

  it("asks again for a key that it does not know, not for one that it does", async () => {
    const hub = new FakeHub();
    const index = new KeyIndex(hub.ask);
    index.setRuns([A]);
    await until(() => index.isLoaded.value);
    index.onChange(change("a", ["loss"]));
    index.onChange(change("elsewhere", ["new"]));
    hub.keys["a"]!.push("new");
    index.onChange(change("a", ["loss", "new"]));
    await until(() => index.keys.value.has("new"));
    expect(hub.asked).toEqual(["a", "a"]);
    index.stop();
  });

  it("says that the hub is away and recovers", async () => {
    const hub = new FakeHub();
    hub.isBroken = true;
    const index = new KeyIndex(hub.ask);
    index.setRuns([A]);
    await until(() => index.error.value !== null);
    expect(index.error.value).toBe("the hub is away");
    hub.isBroken = false;
    index.resync();
    await until(() => index.keys.value.size === 2);
    expect(index.error.value).toBeNull();
  });
});
