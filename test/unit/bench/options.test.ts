import { describe, expect, test } from "bun:test";
import { parseOptions } from "../../../scripts/bench/options.ts";

describe("what is measured", () => {
  test("everything in five rounds, and kept, when nothing is said", () => {
    expect(parseOptions([])).toEqual({
      kind: "measure",
      suites: ["native", "kernel", "async"],
      plan: { rounds: 5, seconds: 1, seed: 1, quick: false, filter: undefined, footprints: true },
      json: undefined,
      keep: true,
    });
  });

  test("the suites that are named, each once, in their own order", () => {
    expect(parseOptions(["kernel", "native", "kernel"])).toMatchObject({ suites: ["native", "kernel"] });
  });

  test("what the options say", () => {
    const words = ["native", "--rounds", "7", "--seconds", "0.25", "--seed", "42"];
    const plan = { rounds: 7, seconds: 0.25, seed: 42 };
    expect(parseOptions(words)).toMatchObject({ plan, keep: true });
  });

  test.each([["--quick"], ["--filter=d32"], ["--json=x"]])("with %s the project's results stay", (option) => {
    expect(parseOptions([option])).toMatchObject({ kind: "measure", keep: false });
  });

  test("the filter is a pattern", () => {
    const task = parseOptions(["--filter", "^memory/.*-d(1|32)$"]);
    if (task.kind !== "measure") throw new Error(task.kind);
    expect(task.plan.filter?.test("memory/read-128k-d32")).toBe(true);
    expect(task.plan.filter?.test("memory/read-128k-d8")).toBe(false);
  });

  test("a guard takes the quick cells, and not what is compared with ourselves", () => {
    expect(parseOptions(["--guard"])).toMatchObject({
      kind: "guard",
      suites: ["native", "kernel"],
      plan: { rounds: 3, seconds: 0.5, quick: true, footprints: false },
    });
    const changed = parseOptions(["--guard", "native", "--rounds", "9"]);
    expect(changed).toMatchObject({ suites: ["native"], plan: { rounds: 9 } });
  });

  test("help and render measure nothing", () => {
    expect(parseOptions(["--help"])).toEqual({ kind: "help" });
    expect(parseOptions(["--render"])).toEqual({ kind: "render" });
  });
});

describe("what is refused", () => {
  test.each([
    [["vm"], 'unknown suite "vm": choose from native, kernel, async'],
    [["--rounds", "0"], '--rounds "0"'],
    [["--rounds", "2.5"], '--rounds "2.5"'],
    [["--seconds", "0"], '--seconds "0"'],
    [["--seconds", "-1"], "--seconds"],
    [["--seconds", "1e3"], '--seconds "1e3"'],
    [["--seed", "x"], '--seed "x"'],
    [["--filter", "("], "--filter"],
    [["--fast"], "--fast"],
    [["--guard", "--json", "x"], "--guard keeps no results"],
  ])("%p", (words, message) => {
    expect(() => parseOptions(words)).toThrow(message);
    expect(() => parseOptions(words)).toThrow("see bun run bench --help");
  });
});
