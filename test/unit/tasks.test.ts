/** Goal: concurrent tasks start in order, are shown separately and counted; a machine that dies gets a second try. */
import { afterEach, beforeEach, expect, spyOn, test } from "bun:test";
import { failuresIn, testsInVm } from "../../scripts/lib/suites.ts";
import { inOrder, Log, runTasks } from "../../scripts/lib/tasks.ts";
import { TemporaryDirectory } from "../support/temporary.ts";

let directory: TemporaryDirectory;

beforeEach(() => {
  directory = new TemporaryDirectory();
});
afterEach(() => directory[Symbol.dispose]());

test("the output of each is shown whole", async () => {
  using print = spyOn(console, "log").mockImplementation(() => undefined);
  const tasks = ["a", "b/c", "long"].map((name) => ({
    name,
    run: async (log: Log) => {
      log.say(name);
      const stdio = ["ignore", log.fd, log.fd] as const;
      return Bun.spawn(["sh", "-c", "echo out; echo err >&2; exit 3"], { stdio: [...stdio] }).exited;
    },
  }));
  const ordered = inOrder(tasks, ["long"]);
  expect(ordered.map(({ name }) => name)).toEqual(["long", "a", "b/c"]);
  expect(await runTasks(ordered, directory.path)).toEqual([3, 3, 3]);
  const shown = print.mock.calls.map(([text]) => String(text).replace(/\d+ s/, "N s"));
  expect(shown.toSorted()).toEqual(tasks.map(({ name }) => `--- ${name}: N s\n${name}\nout\nerr\n`));
});

test.each([
  ["died", 2, ""],
  ["died after a failure", 1, "echo '(fail) a test';"],
] as const)("what %s has %d machines at most", async (_, times, said) => {
  using log = new Log(directory.join("log"));
  const machine = ["sh", "-c", `echo started; ${said} exit 125`, "machine"];
  const [task] = testsInVm("test/unit/torture", machine);
  expect(await task?.run(log)).toMatchObject({ failed: 1 });
  expect(log.text().match(/^started$/gm)).toHaveLength(times);
});

test("what failed is told with what was printed about it, and nothing of the others", () => {
  const long = Array.from({ length: 100 }, (_, line) => `line ${line}`).join("\n");
  const log = `(pass) a\nerror: b\n  at b.ts\n(fail) b [1.00ms]\n(pass) c\n${long}\n(fail) d [1.00ms]\n2 tests failed:\n(fail) b [1.00ms]\n(fail) d [1.00ms]\n`;
  const [b, d, ...others] = failuresIn(log);
  expect(b).toBe("error: b\n  at b.ts\n(fail) b [1.00ms]");
  expect(d).toStartWith("line 61\n");
  expect(d).toEndWith("line 99\n(fail) d [1.00ms]");
  expect(others).toEqual([]);
});
