/**
 * Goal: whatever depends on the page size works with pages of 4, 16 and 64 KiB, which kernels for Arm have. The kernel
 * is this machine's: each of its pages is a part of a larger one.
 */
import { expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { run } from "../support/shell.ts";

const ROOT = join(import.meta.dir, "../..");
const KIB = 1024;
const MIB = 1024 * KIB;

// Bytes in a page, in a huge page; where the descriptors of the second ublk queue are, and those of 129 tags;
// whether a page is all that is remembered at once of a file in memory.
test.each([
  [4 * KIB, 2 * MIB, 96 * KIB, 4 * KIB, false],
  [16 * KIB, 32 * MIB, 96 * KIB, 16 * KIB, false],
  [64 * KIB, 512 * MIB, 128 * KIB, 64 * KIB, true],
])("with pages of %d bytes", async (page, huge, offset, length, isOneChunk) => {
  const program = join(ROOT, "test/support/page-size.ts");
  const { stdout, stderr } = await run([process.execPath, program, String(page)]);
  expect(stderr).toBe("");
  expect(JSON.parse(stdout)).toEqual({
    wrong: [],
    unaligned: 0,
    gaveBack: true,
    charged: 2 * page,
    whole: [isOneChunk, true, false],
    HUGE_PAGE: huge,
    queue: { offset, length },
  });
});

test("nothing else knows of pages: what is new here belongs in the test above", () => {
  const files = ["src", "devices"].flatMap((folder) =>
    readdirSync(join(ROOT, folder), { recursive: true, encoding: "utf8" }).map((name) => join(folder, name)),
  );
  const names = files
    .filter((name) => name.endsWith(".ts"))
    .filter((name) => /\b(?:PAGE|HUGE_PAGE|getpagesize)\b/.test(readFileSync(join(ROOT, name), "utf8")));
  expect(names.toSorted()).toEqual([
    "devices/ramdisk.ts",
    "src/libc/index.ts",
    "src/libc/memory-guard.ts",
    "src/libc/memory.ts",
    "src/libc/pagemap.ts",
    "src/libc/residence.ts",
    "src/libc/symbols.ts",
    "src/ublk/queue/descriptors.ts",
  ]);
});
