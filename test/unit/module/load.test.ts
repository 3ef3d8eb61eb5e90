/** Goal: a module in any valid form becomes a device; in any other, one line says where and what is wrong. */
import { afterEach, expect, test } from "bun:test";
import { symlinkSync } from "node:fs";
import { UserError } from "../../../src/errors.ts";
import { loadDevice, UserModule } from "../../../src/module/load.ts";
import { writeFiles } from "../../support/files.ts";
import { TemporaryDirectory } from "../../support/temporary.ts";

let directory: TemporaryDirectory | undefined;

afterEach(() => {
  directory?.[Symbol.dispose]();
  directory = undefined;
});

/** Writes files to a new directory, and returns the path of the first. */
function moduleOf(files: Readonly<Record<string, string>>): string {
  directory?.[Symbol.dispose]();
  directory = new TemporaryDirectory();
  return writeFiles(directory.path, files);
}

/** The error line for an invalid module, without the directory. */
async function failure(load: () => Promise<unknown>): Promise<string> {
  try {
    await load();
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    expect(error.message).not.toContain("\n");
    return error.message.replaceAll(`${directory?.path}/`, "");
  }
  throw new Error("the module was loaded");
}

const DEVICE = `{ size: 4096, read(target: Uint8Array): void { target.fill(7); } }`;

test.each([
  ["an object", `export default ${DEVICE};`],
  ["a function", `export default function make() { return ${DEVICE}; }`],
  ["an asynchronous function", `export default async () => (${DEVICE});`],
  ["a promise", `export default Promise.resolve(${DEVICE});`],
  ["a class", `export default class { size = 4096; read(target: Uint8Array): void { target.fill(7); } }`],
  ["a name", `const device = ${DEVICE};\nexport { device as default };`],
  ["a module that waits", `await Promise.resolve();\nexport default ${DEVICE};`],
])("%s", async (_, text) => {
  const device = await loadDevice(moduleOf({ "disk.ts": text }));
  const target = new Uint8Array(4096);
  await device.read(target, 0);
  expect(device.size).toBe(4096);
  expect(target).toEqual(new Uint8Array(4096).fill(7));
});

test("types, an enum, relative imports, the library and the module's own path", async () => {
  const path = moduleOf({
    "disk.ts": `
import { type BlockDevice, ErrnoError, libc } from "tsbuse";
import { Kind, sizeOf } from "./lib/size.ts";
export default (): BlockDevice & { readonly error: Error; readonly directory: string } => ({
  size: sizeOf(Kind.Large),
  read(): void { throw new ErrnoError("ENOSPC"); },
  error: new ErrnoError("EPERM", libc.errorText(1)),
  directory: import.meta.dir,
});`,
    "lib/size.ts": `
export enum Kind { Small = 512, Large = 8192 }
export function sizeOf(kind: Kind): number { return kind as number; }`,
  });
  const { ErrnoError } = await import("tsbuse");
  const device = await loadDevice(path);
  expect(device).toMatchObject({ size: 8192, error: new ErrnoError("EPERM"), directory: directory?.path });
  expect(() => device.read(new Uint8Array(512), 0)).toThrow(ErrnoError);
});

test("a module by a link, and one of JavaScript", async () => {
  const path = moduleOf({ "disk.js": "export default { size: 512, read() {} };" });
  symlinkSync(path, `${path}.link.js`);
  expect(await loadDevice(`${path}.link.js`)).toMatchObject({ size: 512 });
});

test("options are strings, or typed by the module's table", async () => {
  const plain = moduleOf({
    "disk.ts": "export default (options: object) => ({ size: 512, read() {}, options });",
  });
  expect(await loadDevice(plain, { size: "1G", url: "" })).toMatchObject({
    options: { size: "1G", url: "" },
  });
  const typed = moduleOf({
    "disk.ts": `
export const options = {
  size: { type: "size", default: "1M" }, fast: { type: "boolean", default: "no" },
  rate: { type: "number", default: "0.5" }, url: { type: "string" },
};
export default (options: object) => ({ size: 512, read() {}, options });`,
  });
  expect(await loadDevice(typed, { url: "x=y", fast: "yes" })).toMatchObject({
    options: { size: 2 ** 20, fast: true, rate: 0.5, url: "x=y" },
  });
});

const TABLE = 'export const options = { size: { type: "size" } };\nexport default () => 1;';

test.each([
  [TABLE, {}, 'disk.ts: the option "size" is missing: add -- size=VALUE'],
  [TABLE, { siez: "1" }, 'disk.ts: there is no option "siez": give size'],
  [
    TABLE,
    { size: "big" },
    "disk.ts: size=big is invalid: give bytes, or a number with K, M, G or T, such as 512M",
  ],
  [
    TABLE,
    { size: "-1" },
    "disk.ts: size=-1 is invalid: give bytes, or a number with K, M, G or T, such as 512M",
  ],
  [
    "export const options = 5;\nexport default 1;",
    {},
    'disk.ts: the export "options" is not a table: make it { name: { type: "string" } }',
  ],
  [
    'export const options = { a: { type: "date" } };\nexport default 1;',
    {},
    'disk.ts: the option "a" has no type: make it { type } of string, number, size, boolean, default a string',
  ],
  [
    `export default ${DEVICE};`,
    { size: "1" },
    "disk.ts:1: the default export is no function, so it takes no options: leave them out",
  ],
])("options: %p with %p", async (text, given: Record<string, string>, message) => {
  expect(await failure(() => loadDevice(moduleOf({ "disk.ts": text }), given))).toBe(message);
});

// The module's text, and the error line.
test.each([
  ["const a = 1;\nexport default 3 3;", 'disk.ts:2:18: Expected ";" but found "3"'],
  [
    "\nexport const device = {};",
    'disk.ts: there is no default export: add "export default" before the device',
  ],
  ["\n\nimport './missing.ts';\nexport default 1;", 'disk.ts:3:8: Could not resolve: "./missing.ts"'],
  [
    "import { nowhere } from 'nowhere';\nexport default nowhere;",
    'disk.ts:1:25: Could not resolve: "nowhere". Maybe you need to "bun install"?',
  ],
  [
    "import { Disc } from 'tsbuse';\nexport default Disc;",
    'disk.ts:1:10: No matching export in "tsbuse" for import "Disc"',
  ],
  [
    "import { nothing } from 'node:fs';\nexport default nothing;",
    "disk.ts: Export named 'nothing' not found in module 'node:fs'.",
  ],
  [
    "interface Long {\n  a: 1;\n}\nfunction f(): Long {\n  throw new RangeError('too\\n  far');\n}\nf();\nexport default 1;",
    "disk.ts:5:13: the module threw RangeError: too far",
  ],
  ["throw null;\nexport default 1;", "disk.ts: the module threw null: throw an Error, which says why"],
  [
    "throw 'up';\nexport default 1;",
    'disk.ts: the module threw the string "up": throw an Error, which says why',
  ],
  [
    "import { UserError } from 'tsbuse';\nexport default () => {\n  throw new UserError('no database: give -- file=FILE');\n};",
    "disk.ts:3:13: no database: give -- file=FILE",
  ],
  ["\nexport default () => {};", "disk.ts:2: the function returned nothing: return the device"],
  [
    "\nexport default () => 'disk';",
    'disk.ts:2: the string "disk" is not a block device: export or return an object with size and read()',
  ],
])("wrong: %p", async (text, message) => {
  expect(await failure(() => loadDevice(moduleOf({ "disk.ts": text })))).toBe(message);
});

test.each([
  ["null", "null is not a block device: export or return an object with size and read()"],
  ["{ size: 512 }", "the device has no read method: add read(target, offset)"],
  ["{ size: 512, read: 5 }", "read is 5: make it a method read(target, offset)"],
  ["{ size: 512, read() {}, write: null }", "write is null: make it a method, or leave it out"],
  ["{ size: 512, read() {}, trim: {} }", "trim is an object: make it a method, or leave it out"],
  ["{ read() {} }", "the device has no size: add size, its length in bytes"],
  ["{ size: '4K', read() {} }", 'size is the string "4K": make it a number of bytes'],
  ["{ size: 4096n, read() {} }", "size is a bigint: make it a number of bytes"],
  ["{ size: NaN, read() {} }", "size is NaN: make it a whole number of blocks of 512 bytes, at least one"],
  ["{ size: 1000, read() {} }", "size is 1000: make it a whole number of blocks of 512 bytes, at least one"],
  ["{ size: 0, read() {} }", "size is 0: make it a whole number of blocks of 512 bytes, at least one"],
  [
    "{ size: 512, blockSize: 4096, read() {} }",
    "size is 512: make it a whole number of blocks of 4096 bytes, at least one",
  ],
  [
    "{ size: 4096, blockSize: 1000, read() {} }",
    "blockSize is 1000: make it 512, 1024, 2048 or 4096, or leave it out",
  ],
  ["{ size: 512, fua: true, read() {} }", 'fua is true: make it "native", or leave it out'],
  ["{ size: 512, memory: {}, read() {} }", "memory has no address: make it a MemoryWindow, or leave it out"],
  [
    "{ get size() { throw new Error('later'); }, read() {} }",
    "a property of the device cannot be read (later): make it one that can",
  ],
])("export default %s", async (text, message) => {
  const wrong = moduleOf({ "disk.ts": `export default ${text};` });
  expect(await failure(() => loadDevice(wrong))).toBe(`disk.ts:1: ${message}`);
});

test.each([
  ["() => {\n throw new Error(''); }", ":2:12", "Error: no message"],
  ["() => { throw null; }", "", "null: throw an Error, which says why"],
  ["async () => {\n throw new TypeError('no'); }", ":2:12", "TypeError: no"],
  ["() => Promise.reject(undefined)", "", "undefined: throw an Error, which says why"],
])("%j throws", async (text, place, thrown) => {
  const wrong = moduleOf({ "disk.ts": `export default ${text};` });
  const message = `disk.ts${place}: the function that makes the device threw ${thrown}`;
  expect(await failure(() => loadDevice(wrong))).toBe(message);
});

test("the error of an imported file is told with that file", async () => {
  const syntax = moduleOf({
    "disk.ts": "export { device as default } from './lib.ts';",
    "lib.ts": "\nlet let;",
  });
  expect(await failure(() => loadDevice(syntax))).toStartWith("lib.ts:2:5: ");
  const missing = moduleOf({
    "disk.ts": "import { a } from './lib.ts';\nexport default a;",
    "lib.ts": "export const b = 1;",
  });
  expect(await failure(() => loadDevice(missing))).toMatch(
    /^disk.ts:1:10: No matching export in ".*lib.ts" for import "a"$/,
  );
  const thrown = moduleOf({
    "disk.ts": "import './lib.ts';\nexport default 1;",
    "lib.ts": "\nthrow new Error('boom');",
  });
  expect(await failure(() => loadDevice(thrown))).toBe("lib.ts:2:11: the module threw Error: boom");
});

test.each([
  ["the module", "await new Promise(() => {});\nexport default 1;"],
  ["the function that makes the device", "export default () => new Promise(() => {});"],
])("%s comes to no end", async (what, text) => {
  const module = new UserModule(moduleOf({ "disk.ts": text }), 100);
  expect(await failure(() => module.load({}))).toBe(
    `disk.ts: ${what} is not done after 0.1 s: see what it waits for`,
  );
});

test("a path that is no module", async () => {
  moduleOf({ "disk.txt": "" });
  const wrong = `${directory?.path}/disk.txt`;
  expect(await failure(() => loadDevice(`${wrong}.ts`))).toBe(
    "disk.txt.ts does not exist: check the name of the module",
  );
  expect(await failure(() => loadDevice(wrong))).toBe(
    "disk.txt is not a module: give a file that ends in .ts or .js",
  );
});
