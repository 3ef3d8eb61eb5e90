/** The binary runs as root in directories that others may write to: it reads no configuration there. */
import { afterAll, expect, test } from "bun:test";
import { existsSync, mkdirSync, readFileSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { TemporaryDirectory } from "../../support/temporary.ts";
import { execute } from "./tsbuse.ts";

const BINARY = join(import.meta.dir, "../../../dist/tsbuse");

/** Files that Bun looks for. Each of these would be an error, or would run code. */
const FILES = {
  ".env": "TSBUSE_DAEMON=1\n",
  ".env.local": "TSBUSE_DAEMON=1\n",
  ".env.production": "TSBUSE_DAEMON=1\n",
  "bunfig.toml": 'preload = ["./preload.ts"]\n',
  "preload.ts": 'await Bun.write("preloaded", "");\n',
  "package.json": "{ this is not JSON",
  "tsconfig.json": "{ this is not JSON",
  "jsconfig.json": "{ this is not JSON",
  ".npmrc": "registry=http://localhost:1/\n",
  "node_modules/citty/package.json": '{ "name": "citty", "main": "index.js" }',
  "node_modules/citty/index.js": 'throw new Error("the wrong citty");\n',
} as const;

const LONG_AGO = new Date("2001-01-01T00:00:00Z");

const temporary = new TemporaryDirectory();
const directory = temporary.path;
afterAll(() => temporary[Symbol.dispose]());
mkdirSync(join(directory, "node_modules/citty"), { recursive: true });
for (const [name, text] of Object.entries(FILES)) {
  writeFileSync(join(directory, name), text);
  utimesSync(join(directory, name), LONG_AGO, new Date());
}

test.skipIf(!existsSync(BINARY))("nothing is read from it (needs dist/tsbuse: bun run build)", () => {
  const here = execute([BINARY, "ramdisk", "--help"], directory);
  expect(here).toEqual(execute([BINARY, "ramdisk", "--help"], "/"));
  expect(here.status).toBe(0);
  expect(existsSync(join(directory, "preloaded"))).toBe(false);
  for (const name of Object.keys(FILES)) expect([name, lastRead(name)]).toEqual([name, LONG_AGO]);
});

test.skipIf(!readingShows())(
  "a file that is read would show (needs a file system that keeps access times)",
  () => {
    expect(lastRead("control")).not.toEqual(LONG_AGO);
  },
);

function lastRead(name: string): Date {
  return statSync(join(directory, name)).atime;
}

function readingShows(): boolean {
  writeFileSync(join(directory, "control"), "x");
  utimesSync(join(directory, "control"), LONG_AGO, new Date());
  readFileSync(join(directory, "control"));
  return lastRead("control").getTime() !== LONG_AGO.getTime();
}
