/** Goal: what "tsbuse new" writes is understood by an editor with nothing installed, and runs. */
import { expect, test } from "bun:test";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { apiDeclarations } from "../../../scripts/types.ts";
import { loadDevice } from "../../../src/module/load.ts";
import { run } from "../../support/shell.ts";
import { TemporaryDirectory } from "../../support/temporary.ts";
import { expectLine, tsbuse } from "../cli/tsbuse.ts";

const ROOT = join(import.meta.dir, "../../..");
const TSC = [process.execPath, join(ROOT, "node_modules/typescript/bin/tsc"), "-p"];

test("a starter is written, understood by the compiler, and runs", async () => {
  using temporary = new TemporaryDirectory();
  const directory = temporary.join("my disk");
  const end = tsbuse("new", directory);
  expect(end).toEqual({
    status: 0,
    stdout: `sudo tsbuse run '${directory}/device.ts' auto --watch\n`,
    stderr: "",
  });
  expect(readdirSync(directory).toSorted()).toEqual(["device.ts", "tsbuse.d.ts", "tsconfig.json"]);
  expect(await run([...TSC, directory])).toEqual({ status: 0, stdout: "", stderr: "" });
  const check = tsbuse("check", join(directory, "device.ts"), "--seed", "1", "--", "size=64K");
  expect(check).toMatchObject({ status: 0, stderr: "" });
  const device = await loadDevice(join(directory, "device.ts"), { size: "1M" });
  const bytes = new Uint8Array(512).fill(7);
  await device.write?.(bytes, 1024, { fua: false });
  const next = await loadDevice(join(directory, "device.ts"), { size: "1M" });
  await next.takeOver?.(device);
  const target = new Uint8Array(512);
  await next.read(target, 1024);
  expect(target).toEqual(bytes);
});

test("its types are types: a mistake is found", async () => {
  using temporary = new TemporaryDirectory();
  const directory = temporary.join("disk");
  tsbuse("new", directory);
  const module = join(directory, "device.ts");
  writeFileSync(
    module,
    readFileSync(module, "utf8").replace("offset: number): void", "offset: string): void"),
  );
  const { status, stdout } = await run([...TSC, directory]);
  expect(stdout).toContain("device.ts");
  expect(stdout).toContain("Type 'number' is not assignable to type 'string'");
  expect(status).not.toBe(0);
});

test("nothing is overwritten", () => {
  using temporary = new TemporaryDirectory();
  const directory = temporary.join("disk");
  mkdirSync(directory);
  expectLine(tsbuse("new", directory), 1, `${directory} exists already`, "choose another name");
  expect(readdirSync(directory)).toEqual([]);
  const file = temporary.join("file");
  writeFileSync(file, "mine");
  expectLine(tsbuse("new", file), 1, `${file} exists already`, "choose another name");
  expect(readFileSync(file, "utf8")).toBe("mine");
  expect(tsbuse("new", join(file, "disk")).stderr).toMatch(/cannot be made \(.*\): choose another place\n$/);
});

test("the declarations are those of the API: bun run types", async () => {
  const written = readFileSync(join(ROOT, "src/module/starter/tsbuse.d.txt"), "utf8");
  expect(await apiDeclarations()).toBe(written);
});
