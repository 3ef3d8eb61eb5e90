/** Goal: a process that executes itself again stays the same in every respect. */
import { expect, test } from "bun:test";
import { join } from "node:path";
import { sh } from "../support/shell.ts";
import { TemporaryDirectory } from "../support/temporary.ts";

test("startAnew: number, words to the byte, environment, descriptors and signals stay; so does its input", async () => {
  using temporary = new TemporaryDirectory();
  const report = temporary.join("report");
  const script = join(import.meta.dir, "../support/start-anew.ts");
  const output = await sh(
    `cd ${temporary.path}; echo seven >seven; trap "" HUP
    printf input | FOO="$(printf 'b\\303')" ${process.execPath} ${script} ${report} a "" "$(printf 'b\\377 c')" 7<seven`,
  );
  const [first, second, ...more] = (await Bun.file(report).text()).trim().split("\n");
  expect(output).toBe("input");
  expect(more).toEqual([]);
  expect(first).toBe(second ?? "");
  expect(JSON.parse(first ?? "")).toMatchObject({
    commandLine: [process.execPath, script, report, "a", "", "b\xff c", ""].join("\0"),
    variable: "FOO=b\xc3",
    inherited: "seven\n",
  });
});
