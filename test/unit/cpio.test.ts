/** Goal: busybox reads archives correctly, and they depend only on their entries. */
import { expect, test } from "bun:test";
import { lstatSync, mkdirSync, readFileSync, readlinkSync } from "node:fs";
import { cpioArchive, type Entry } from "../../scripts/lib/cpio.ts";
import { sh } from "../support/shell.ts";
import { TemporaryDirectory } from "../support/temporary.ts";

const DATA = new Uint8Array(1001).map((_, index) => index);

const ENTRIES: readonly Entry[] = [
  { kind: "directory", path: "a" },
  { kind: "file", path: "a/data", mode: 0o640, data: DATA },
  { kind: "file", path: "a/empty", mode: 0o755, data: new Uint8Array(0) },
  { kind: "symlink", path: "a/link", target: "../elsewhere" },
];

test("unpacks to what was put in, also behind another archive", async () => {
  using directory = new TemporaryDirectory();
  const first = cpioArchive([{ kind: "file", path: "first", mode: 0o644, data: DATA.subarray(0, 3) }], 0);
  await Bun.write(directory.join("all.cpio"), Buffer.concat([first, cpioArchive(ENTRIES, 1_000_000_000)]));
  mkdirSync(directory.join("root"));
  // busybox stops at the end of an archive; the second one lies at a multiple of its blocks.
  const skip = first.length / 512;
  expect(Number.isInteger(skip)).toBe(true);
  await sh(`cd '${directory.join("root")}' && busybox cpio -id < ../all.cpio`);
  await sh(
    `cd '${directory.join("root")}' && dd if=../all.cpio bs=512 skip=${skip} status=none | busybox cpio -idm`,
  );

  const at = (name: string) => directory.join(`root/${name}`);
  expect(readFileSync(at("first"))).toEqual(Buffer.from(DATA.subarray(0, 3)));
  expect(readFileSync(at("a/data"))).toEqual(Buffer.from(DATA));
  expect(lstatSync(at("a/data")).mode).toBe(0o100640);
  expect(lstatSync(at("a/data")).mtimeMs).toBe(1_000_000_000_000);
  expect(readFileSync(at("a/empty"))).toHaveLength(0);
  expect(lstatSync(at("a/empty")).mode).toBe(0o100755);
  expect(readlinkSync(at("a/link"))).toBe("../elsewhere");
});

test("every member belongs to root, and the same entries make the same bytes", async () => {
  using directory = new TemporaryDirectory();
  const archive = cpioArchive(ENTRIES, 0);
  await Bun.write(directory.join("a.cpio"), archive);
  const lines = (await sh(`busybox cpio -tv < '${directory.join("a.cpio")}'`)).split("\n");
  expect(lines.map((line) => line.split(/\s+/)[1])).toEqual(["0/0", "0/0", "0/0", "0/0"]);
  expect(cpioArchive(ENTRIES, 0)).toEqual(archive);
});
