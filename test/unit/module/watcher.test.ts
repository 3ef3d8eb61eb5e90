/** Goal: a saved module takes over, and a faulty one leaves the previous one in place. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { existsSync, renameSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { UserModule } from "../../../src/module/load.ts";
import { SwappableDevice } from "../../../src/module/swappable.ts";
import { ModuleWatcher } from "../../../src/module/watcher.ts";
import { writeFiles } from "../../support/files.ts";
import { until } from "../../support/shell.ts";
import { TemporaryDirectory } from "../../support/temporary.ts";

let directory: TemporaryDirectory;
let watched: Watched | undefined;

beforeEach(() => {
  directory = new TemporaryDirectory();
});

afterEach(async () => {
  await watched?.watcher.stop();
  directory[Symbol.dispose]();
});

/** A watched module, and the reports about it. */
class Watched {
  private constructor(
    readonly device: SwappableDevice,
    readonly watcher: ModuleWatcher,
    readonly reports: string[],
  ) {}

  static async start(
    path: string,
    options: Readonly<Record<string, string>> = {},
    limitMs = 200,
  ): Promise<Watched> {
    const module = new UserModule(path, limitMs);
    const reports: string[] = [];
    const device = new SwappableDevice(await module.load(options), (line) => reports.push(line));
    const watcher = new ModuleWatcher(module, options, device, {
      reloaded: () => reports.push("reloaded"),
      failed: (line) => reports.push(line.replaceAll(`${directory.path}/`, "")),
    });
    watched = new Watched(device, watcher, reports);
    return watched;
  }

  /** The next report after `change`. */
  async after(change: () => void): Promise<string> {
    const count = this.reports.length;
    change();
    await until("a report of the watcher", () => this.reports.length > count);
    return this.reports[count] ?? "";
  }

  /** The byte that the device answers with. */
  async byte(): Promise<number | undefined> {
    const target = new Uint8Array(512);
    await this.device.read(target, 0);
    return target[0];
  }
}

const withByte = (byte: number): string =>
  `export default { size: 512, read(target: Uint8Array) { target.fill(${byte}); } };`;

const importing = (file: string): string => `import { byte } from "./${file}";
export default { size: 512, read(target: Uint8Array) { target.fill(byte); } };`;

const counting = (step: number): string => `
class Counter {
  readonly size = 512;
  count = 0;
  closed: number[] = [];
  constructor(readonly options: { step: string }) {}
  read(target: Uint8Array) { this.count += ${step} * Number(this.options.step); target[0] = this.count; target[1] = this.closed.length; }
  takeOver(previous: Counter) { this.count = previous.count; this.closed = previous.closed; }
  close() { this.closed.push(1); }
}
export default (options: { step: string }) => new Counter(options);`;

const notClosing = (
  byte: number,
): string => `export default { size: 512, read(target: Uint8Array) { target.fill(${byte}); },
  close() { throw new Error("stuck"); } };`;

/** Version N of a module that replaces itself by the next: an odd one while it runs, an even one as it takes over. */
const saving = (version: number): string => `
import { copyFileSync } from "node:fs";
const save = () => copyFileSync(import.meta.dir + "/${version + 1}.txt", import.meta.path);
const isOdd = ${version % 2 === 1};
if (isOdd) save();
export default {
  size: 512,
  read(target: Uint8Array) { target.fill(${version}); },
  takeOver() { if (!isOdd) save(); },
};`;

/** Keeps loading until `before.txt` is gone. */
const closing = `
import { existsSync, writeFileSync } from "node:fs";
const beside = (name: string) => import.meta.dir + "/" + name;
writeFileSync(beside("loading.txt"), "");
while (existsSync(beside("before.txt"))) await Bun.sleep(1);
export default { size: 512, read() {}, close() { writeFileSync(beside("closed.txt"), ""); } };`;

/** How often a module that holds much memory is saved. */
const KEPT = 8;

const keeping = (number: number): string => `
const bytes = new Uint8Array(${2 ** 20} + ${number});
const device = { size: 512, read(target: Uint8Array) { target.set(bytes.subarray(0, 512)); } };
globalThis.made(device);
export default device;`;

const GOES_ON = ": the previous device keeps serving";

test("a saved module takes over, time and again", async () => {
  const path = writeFiles(directory.path, { "disk.ts": withByte(1) });
  const module = await Watched.start(path);
  expect(await module.byte()).toBe(1);
  for (const byte of [2, 3, 4]) {
    expect(await module.after(() => writeFileSync(path, withByte(byte)))).toBe("reloaded");
    expect(await module.byte()).toBe(byte);
  }
});

test("a module that an editor writes anew and renames, and one that keeps its size", async () => {
  const path = writeFiles(directory.path, { "disk.ts": withByte(1) });
  const module = await Watched.start(path);
  const rename = (): void => {
    writeFileSync(`${path}~`, withByte(2));
    utimesSync(`${path}~`, 1, 1);
    renameSync(`${path}~`, path);
  };
  expect(await module.after(rename)).toBe("reloaded");
  expect(await module.byte()).toBe(2);
});

test("an imported file that is saved, and one that came in later", async () => {
  const path = writeFiles(directory.path, {
    "disk.ts": importing("a/byte.ts"),
    "a/byte.ts": "export const byte = 1;",
    "b.ts": "export const byte = 10;",
  });
  const module = await Watched.start(path);
  expect(await module.after(() => writeFileSync(directory.join("a/byte.ts"), "export const byte = 2;"))).toBe(
    "reloaded",
  );
  expect(await module.byte()).toBe(2);
  expect(await module.after(() => writeFileSync(path, importing("b.ts")))).toBe("reloaded");
  expect(await module.byte()).toBe(10);
  expect(await module.after(() => writeFileSync(directory.join("b.ts"), "export const byte = 11;"))).toBe(
    "reloaded",
  );
  expect(await module.byte()).toBe(11);
});

test.each([
  ["it cannot be parsed", "export default 3 3;", 'disk.ts:1:18: Expected ";" but found "3"'],
  [
    "its size is another",
    "export default { size: 1024, read() {} };",
    "size was 512 and is 1024 now, which cannot change in use: restart tsbuse for that",
  ],
])("%s: the device before goes on, and the corrected module takes over", async (_, text, message) => {
  const path = writeFiles(directory.path, { "disk.ts": withByte(1) });
  const module = await Watched.start(path);
  expect(await module.after(() => writeFileSync(path, text))).toBe(`${message}${GOES_ON}`);
  expect(await module.byte()).toBe(1);
  expect(await module.after(() => writeFileSync(path, withByte(2)))).toBe("reloaded");
  expect(await module.byte()).toBe(2);
});

test("an imported file that is wrong is corrected", async () => {
  const path = writeFiles(directory.path, {
    "disk.ts": `import { byte } from "./byte.ts";\nexport default { size: 512, read(target: Uint8Array) { target.fill(byte); } };`,
    "byte.ts": "export const byte = 1;",
  });
  const module = await Watched.start(path);
  const save = (text: string) => (): void => writeFileSync(directory.join("byte.ts"), text);
  expect(await module.after(save("export const byte = ;"))).toStartWith("byte.ts:1:21: ");
  expect(await module.after(save("import { a } from 'node:fs';\nexport const byte = a;"))).toContain(
    "node:fs",
  );
  expect(await module.after(save("export const bite = 1;"))).toContain('for import "byte"');
  expect(await module.byte()).toBe(1);
  expect(await module.after(save("export const byte = 9;"))).toBe("reloaded");
  expect(await module.byte()).toBe(9);
});

test("the state is handed over, the device before is closed, and the options are the same", async () => {
  const path = writeFiles(directory.path, { "disk.ts": counting(1) });
  const module = await Watched.start(path, { step: "2" });
  expect(await module.byte()).toBe(2);
  expect(await module.after(() => writeFileSync(path, counting(10)))).toBe("reloaded");
  const target = new Uint8Array(512);
  await module.device.read(target, 0);
  expect([...target.subarray(0, 2)]).toEqual([22, 1]);
});

test("a module that is saved while it is being loaded is loaded once more", async () => {
  const versions = [2, 3, 4, 5].map((version) => [`${version}.txt`, saving(version)]);
  const path = writeFiles(directory.path, {
    "disk.ts": saving(1),
    ...Object.fromEntries(versions),
    "6.txt": withByte(6),
  });
  const module = await Watched.start(path);
  await until("the last version takes over", () => module.reports.length === 5);
  expect(await module.byte()).toBe(6);
  expect(module.reports).toEqual(Array(5).fill("reloaded"));
});

test("the end in the middle of a reload: the device that comes too late is closed, and nothing is said", async () => {
  const path = writeFiles(directory.path, { "disk.ts": withByte(1), "before.txt": "" });
  const module = await Watched.start(path, {}, 60_000);
  writeFileSync(path, closing);
  await until("it is being loaded", () => existsSync(directory.join("loading.txt")));
  await module.device.close();
  const stopped = module.watcher.stop();
  rmSync(directory.join("before.txt"));
  await stopped;
  expect(existsSync(directory.join("closed.txt"))).toBe(true);
  expect(module.reports).toEqual([]);
});

test("what modules before have made is not kept", async () => {
  let collected = 0;
  const registry = new FinalizationRegistry<undefined>(() => (collected += 1));
  const made = (device: object): unknown => registry.register(device, undefined);
  Object.assign(globalThis, { made });
  const path = writeFiles(directory.path, { "disk.ts": keeping(0) });
  const module = await Watched.start(path);
  for (let number = 1; number <= KEPT; number += 1)
    expect(await module.after(() => writeFileSync(path, keeping(number)))).toBe("reloaded");
  // The collector may mistake leftovers on a stack for references.
  await until("most of them are collected", () => {
    Bun.gc(true);
    return collected > KEPT / 2;
  });
});

test("a device that cannot be closed is reported; the new one serves", async () => {
  const path = writeFiles(directory.path, { "disk.ts": notClosing(1) });
  const module = await Watched.start(path);
  expect(await module.after(() => writeFileSync(path, notClosing(2)))).toBe(
    "a device that is not used any more could not be closed: stuck",
  );
  expect(await module.byte()).toBe(2);
});
