/** Files that cannot be served: each is refused with its cause and a remedy, and nothing is left behind. */
import { describe, expect, test } from "bun:test";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { resolve } from "node:path";
import { Loop, type LoopOptions } from "../../devices/loop.ts";
import { userError } from "../support/failure.ts";
import { openFiles } from "../support/own-use.ts";
import { asOrdinaryUser } from "../support/privileges.ts";
import { TemporaryDirectory } from "../support/temporary.ts";

const SIZE = 64 * 1024;

test.each<[string, LoopOptions, string]>([
  ["none", {}, "none does not exist: check the name, or make it with --create SIZE"],
  ["folder", {}, "folder is a directory: give a regular file or a block device"],
  ["empty", {}, 'empty is empty: give it a size with "truncate -s SIZE empty"'],
  ["link", {}, "link is a symbolic link to a file that does not exist: correct the link"],
  ["image", { offset: 100 }, "offset 100 is not a multiple of 512: give one that is"],
  ["image", { offset: SIZE }, "offset 65536 is beyond the end of image: it has 65536 bytes"],
  ["image", { offset: 2 ** 40 }, "offset 1099511627776 is beyond the end of image: it has 65536 bytes"],
  ["image", { size: SIZE + 512 }, "size 66048 is beyond the end of image: from 0 on it has 65536 bytes"],
  [
    "image",
    { offset: 512, size: SIZE },
    "size 65536 is beyond the end of image: from 512 on it has 65024 bytes",
  ],
  ["image", { create: SIZE }, "image exists already: leave out --create to serve it as it is"],
  ["none/image", { create: SIZE }, "none/image cannot be made: its directory does not exist, make it first"],
  [
    "new",
    { create: SIZE, readOnly: true },
    "a new file that is read-only has no use: leave out --create or --read-only",
  ],
  ["new", { create: 0 }, 'new is empty: give it a size with "truncate -s SIZE new"'],
  ["/dev/null", {}, "/dev/null is neither a regular file nor a block device: give one of these"],
])("%s with %o", (name, options, message) => {
  using directory = new TemporaryDirectory();
  writeFileSync(directory.join("image"), new Uint8Array(SIZE));
  writeFileSync(directory.join("empty"), "");
  mkdirSync(directory.join("folder"));
  symlinkSync("nowhere", directory.join("link"));
  const failure = userError(() => new Loop(resolve(directory.path, name), options));
  expect(failure.replaceAll(`${directory.path}/`, "")).toBe(message);
  expect(openFiles().filter((path) => path.startsWith(directory.path))).toEqual([]);
});

test("a new file that cannot be served is not left behind, and an old one is left as it was", () => {
  using directory = new TemporaryDirectory();
  const path = directory.join("image");
  userError(() => new Loop(path, { create: SIZE, offset: SIZE }));
  expect(existsSync(path)).toBe(false);
  writeFileSync(path, "data");
  userError(() => new Loop(path, { create: SIZE }));
  userError(() => new Loop(path, { offset: 512 }));
  expect(readFileSync(path, "utf8")).toBe("data");
});

describe("a file that is in use", () => {
  const LOCKED = "is locked by another process that serves it: detach it there first";

  test.each<[string, LoopOptions, LoopOptions, boolean]>([
    ["for writing, for writing", {}, {}, false],
    ["for writing, for reading", {}, { readOnly: true }, false],
    ["for reading, for writing", { readOnly: true }, {}, false],
    ["for reading, for reading too", { readOnly: true }, { readOnly: true }, true],
  ])("%s", async (_, first, second, possible) => {
    using directory = new TemporaryDirectory();
    const path = directory.join("image");
    writeFileSync(path, new Uint8Array(SIZE));
    const one = new Loop(path, first);
    if (possible) await new Loop(path, second).close();
    else expect(userError(() => new Loop(path, second))).toBe(`${path} ${LOCKED}`);
    await one.close();
    // The second one succeeds once the first is gone.
    await new Loop(path, second).close();
  });

  const SLEEP = Bun.which("sleep");

  test.skipIf(SLEEP === null)("as a program that runs (skipped where there is no sleep)", () => {
    using directory = new TemporaryDirectory();
    const path = directory.join("sleep");
    copyFileSync(SLEEP ?? "", path);
    chmodSync(path, 0o700);
    const program = Bun.spawn([path, "60"]);
    try {
      const message = `${path} is a program that is running: end it first, or add --read-only`;
      expect(userError(() => new Loop(path))).toBe(message);
    } finally {
      program.kill("SIGKILL");
    }
  });
});

describe("permissions", () => {
  test("a file that may only be read", async () => {
    using directory = new TemporaryDirectory();
    chmodSync(directory.path, 0o755);
    const path = directory.join("image");
    writeFileSync(path, new Uint8Array(SIZE), { mode: 0o444 });
    const message = `${path} cannot be opened: permission denied, add --read-only or run as root`;
    const device = asOrdinaryUser(() => {
      expect(userError(() => new Loop(path))).toBe(message);
      return new Loop(path, { readOnly: true });
    });
    await device.close();
  });

  test("a directory that may only be read", () => {
    using directory = new TemporaryDirectory();
    chmodSync(directory.path, 0o555);
    const path = directory.join("new");
    const message = `${path} cannot be made: permission denied, choose another directory or run as root`;
    asOrdinaryUser(() => expect(userError(() => new Loop(path, { create: SIZE }))).toBe(message));
    chmodSync(directory.path, 0o700);
  });
});
