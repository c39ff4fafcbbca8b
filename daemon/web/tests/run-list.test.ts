import { describe, expect, it } from "vitest";
import { ApiError } from "../src/api";
import { PAGE_SIZE, RunList } from "../src/state/run-list";
import type { Change, Run, RunsPage } from "../src/types";
import { makeRun, until } from "./helpers";

/** A project of `count` runs, newest first, paged by a key as the hub does. */
class FakeProject {
  readonly asked: { where: string; sort: string; cursor: string }[] = [];
  runsById = new Map<string, Run>();
  error: ApiError | null = null;

  constructor(count: number) {
    for (let index = 0; index < count; index += 1) this.add(`r${index}`);
  }

  add(id: string): void {
    this.runsById.set(id, makeRun(id));
  }

  runs = async (query: { where: string; sort: string; limit: number; cursor: string }): Promise<RunsPage> => {
    this.asked.push(query);
    if (this.error) throw this.error;
    const all = [...this.runsById.values()].filter((run) => run.name.includes(query.where));
    if (query.sort === "-created") all.reverse();
    const start = query.cursor === "" ? 0 : Number(query.cursor);
    const runs = all.slice(start, start + query.limit).map((run) => ({ ...run }));
    const end = start + runs.length;
    return { runs, next_cursor: end < all.length ? String(end) : "", total: all.length };
  };

  run = async (id: string): Promise<Run> => ({ ...(this.runsById.get(id) as Run) });
}

const change = (run_id: string, other: Partial<Change> = {}): Change => ({
  project: "p",
  run_id,
  version: 2,
  keys: [],
  has_more_keys: false,
  last: {},
  fields: [],
  ...other,
});

async function open(project: FakeProject, where = ""): Promise<RunList> {
  const list = new RunList(project);
  await list.setQuery({ where, sort: "-created" });
  return list;
}

describe("RunList", () => {
  it("reads one page, and the next when the screen comes near its end", async () => {
    const project = new FakeProject(1000);
    const list = await open(project);
    expect([list.length, list.total.value, list.at(0)?.run_id]).toEqual([PAGE_SIZE, 1000, "r999"]);
    list.show(0, 30);
    expect(project.asked.length).toBe(1);
    list.show(150, 180);
    list.show(151, 181);
    await until(() => list.length === 2 * PAGE_SIZE);
    expect(project.asked.length).toBe(2);
    expect(list.at(PAGE_SIZE)?.run_id).toBe(`r${999 - PAGE_SIZE}`);
  });

  it("drops pages far from the screen and reads them again by their cursor", async () => {
    const project = new FakeProject(6000);
    const list = await open(project);
    while (list.length < 6000) {
      const before = list.length;
      list.show(before - 10, before);
      await until(() => list.length > before);
    }
    list.show(5900, 5930);
    expect(list.at(300)).toBeUndefined();
    expect(list.length).toBe(6000);
    list.show(300, 330);
    await until(() => list.at(300) !== undefined);
    expect(list.at(300)?.run_id).toBe("r5699");
  });

  it("starts over with another filter, and says where a mistake is", async () => {
    const project = new FakeProject(50);
    const list = await open(project);
    await list.setQuery({ where: "name-r4", sort: "-created" });
    expect(list.total.value).toBe(11);
    project.error = new ApiError(400, "expected a value", 7);
    await list.setQuery({ where: "lr <", sort: "-created" });
    expect(list.error.value).toEqual({ message: "expected a value", position: 7 });
    expect(list.total.value).toBe(11);
  });

  it("ignores the answer to a filter that was replaced meanwhile", async () => {
    const project = new FakeProject(50);
    const list = new RunList(project);
    const first = list.setQuery({ where: "r4", sort: "-created" });
    const second = list.setQuery({ where: "r49", sort: "-created" });
    await Promise.all([first, second]);
    expect([list.total.value, list.at(0)?.run_id]).toEqual([1, "r49"]);
  });

  it("takes pushed summary values into the row without asking", async () => {
    const project = new FakeProject(3);
    const list = await open(project);
    list.onChange(change("r1", { last: { loss: 0.25, "val/acc": 0.9 } }));
    expect(list.find("r1")?.summary).toEqual({ loss: 0.25, "val/acc": 0.9 });
    expect(project.asked.length).toBe(1);
    list.stop();
  });

  it("reads a run again when its state changed", async () => {
    const project = new FakeProject(3);
    const list = await open(project);
    project.runsById.get("r1")!.state = "failed";
    list.onChange(change("r1", { fields: ["state"] }));
    await until(() => list.find("r1")?.state === "failed");
    list.stop();
  });

  it("shows a run that is new", async () => {
    const project = new FakeProject(3);
    const list = await open(project);
    project.add("r3");
    list.onChange(change("r3", { fields: ["created"] }));
    await until(() => list.at(0)?.run_id === "r3");
    expect(list.total.value).toBe(4);
    list.stop();
  });
});
