/** What README shows works: its device passes the check, and the files it points to are there. */
import { expect, test } from "bun:test";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { checkDevice } from "../../src/check/check.ts";
import { SERVING_OPTIONS } from "../../src/cli/help/documentation.ts";
import { loadDevice } from "../../src/module/load.ts";
import { TemporaryDirectory } from "../support/temporary.ts";

const ROOT = join(import.meta.dir, "../..");
const README = readFileSync(join(ROOT, "README.md"), "utf8");

test("the device to begin with does what it says, and is without fault", async () => {
  const example = /^ {4}\/\/ counting\.ts[\s\S]*?^ {4}export default device;$/m.exec(README)?.[0] ?? "";
  using directory = new TemporaryDirectory();
  const path = directory.join("counting.ts");
  writeFileSync(path, example.replaceAll(/^ {4}/gm, ""));
  const device = await loadDevice(path, {});
  const target = new Uint8Array(1024).fill(0xff);
  await device.read(target, 7 * 512);
  const text = Buffer.from(target).toString();
  expect(text.split("\0").filter((part) => part !== "")).toEqual(["block 7\n", "block 8\n"]);
  expect(await checkDevice(() => loadDevice(path, {}), { ops: 200 })).toMatchObject({ failure: undefined });
});

test("the files it points to are there, and it names the two commands that set everything up", () => {
  const links = [...README.matchAll(/\]\(([^)#:]+)\)/g)].map(([, link = ""]) => link);
  expect(links.length).toBeGreaterThan(5);
  expect(links.filter((link) => !existsSync(join(ROOT, link)))).toEqual([]);
  for (const script of ["./scripts/demo", "./scripts/test"]) expect(README).toContain(script);
});

test("its table of options has each one that every device takes, once, with what stands for its value", () => {
  const table = /^Every device takes:\n\n(?:\|.*\n)+/m.exec(README)?.[0] ?? "";
  const terms = [...table.matchAll(/^\| (`.*?`) \|/gm)].map(([, cell = ""]) => cell);
  const listed = terms.flatMap((cell) => cell.replaceAll("`", "").split(", "));
  const defined = SERVING_OPTIONS.map(({ name, value }) => [`--${name}`, value ?? []].flat().join(" "));
  expect(listed.toSorted()).toEqual(defined.toSorted());
});
