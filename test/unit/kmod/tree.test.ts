/** Goal: the modules of a kernel are found with an index and without one, in every form they come in. */
import { expect, test } from "bun:test";
import { compressionOf, moduleInfo, moduleName, readImage } from "../../../src/kmod/image.ts";
import { commandLineWords, parameterWords } from "../../../src/kmod/parameters.ts";
import { ModuleTree } from "../../../src/kmod/tree.ts";
import { writeFiles } from "../../support/files.ts";
import { sh } from "../../support/shell.ts";
import { TemporaryDirectory } from "../../support/temporary.ts";

/** The part of a module that is read: the section .modinfo between other bytes. */
function image(depends: string, vermagic = "6.12.9-amd64 SMP mod_unload"): string {
  return `\x7fELF\0\0parm=max_part:int\0depends=${depends}\0vermagic=${vermagic}\0\0\x01\x02`;
}

/** A tree with these files in it. */
function tree(directory: TemporaryDirectory, files: Readonly<Record<string, string>>): ModuleTree {
  writeFiles(directory.path, files);
  return new ModuleTree(directory.path);
}

test.each([
  ["nbd.ko", "nbd", undefined],
  ["kernel/drivers/block/nbd.ko.xz", "nbd", "xz"],
  ["/lib/modules/6.1/updates/ublk-drv.ko.zst", "ublk_drv", "zstd"],
  ["ublk_drv.ko.gz", "ublk_drv", "gzip"],
] as const)("%s", (path, name, compression) => {
  expect(moduleName(path)).toBe(name);
  expect(compressionOf(path)).toBe(compression);
});

test.each(["nbd", "nbd.ko.bak", "modules.dep", "nbd.o"])("%s is no module", (path) => {
  expect(moduleName(path)).toBeUndefined();
});

test("a module says what it needs and what it was built for", () => {
  const bytes = Buffer.from(image("libcrc32c,raid6-pq", "6.1.0-30-amd64 SMP preempt"));
  expect(moduleInfo(bytes)).toEqual({ dependencies: ["libcrc32c", "raid6-pq"], release: "6.1.0-30-amd64" });
  expect(moduleInfo(Buffer.from(image("")))).toEqual({ dependencies: [], release: "6.12.9-amd64" });
  expect(moduleInfo(Buffer.from("no module"))).toEqual({ dependencies: [], release: undefined });
});

// `kmod` requires CRC32, as the kernel does; the default of `xz` is CRC64.
test.each([
  ["xz", "xz --check=crc32 --lzma2=dict=1MiB"],
  ["xz", "xz"],
  ["gz", "gzip"],
  ["zst", "zstd -q --rm -19"],
])("a module file .ko.%s made by %s is decompressed", async (suffix, command) => {
  using directory = new TemporaryDirectory();
  const bytes = Buffer.alloc(300_000, image("a"));
  await Bun.write(directory.join("nbd.ko"), bytes);
  await sh(`${command} ${directory.join("nbd.ko")}`);
  expect(Buffer.from(await readImage(directory.join(`nbd.ko.${suffix}`))).equals(bytes)).toBe(true);
});

test.each(["xz", "gz", "zst"])("a damaged file .ko.%s is an error", async (suffix) => {
  using directory = new TemporaryDirectory();
  const path = directory.join(`nbd.ko.${suffix}`);
  await Bun.write(path, "this is not compressed");
  await expect(readImage(path)).rejects.toThrow();
});

test("modules.dep: dependencies first, dashes and underscores alike, relative and absolute paths", async () => {
  using directory = new TemporaryDirectory();
  const { path } = directory;
  const modules = tree(directory, {
    "modules.dep": `kernel/a.ko:\nkernel/sub/my-mod.ko.xz: ${path}/kernel/b.ko kernel/c.ko\nkernel/my-mod2.ko:\n`,
    "kernel/sub/my-mod.ko.xz": "",
    "kernel/b.ko": "",
    "kernel/c.ko": "",
    "kernel/a.ko": "",
  });
  expect(await modules.chain("my_mod")).toEqual([
    `${path}/kernel/c.ko`,
    `${path}/kernel/b.ko`,
    `${path}/kernel/sub/my-mod.ko.xz`,
  ]);
  expect(await modules.chain("a")).toEqual([`${path}/kernel/a.ko`]);
  expect(await modules.chain("sub")).toBeUndefined();
});

test("without an index the modules themselves are asked, and those of updates/ come first", async () => {
  using directory = new TemporaryDirectory();
  const { path } = directory;
  const modules = tree(directory, {
    "kernel/drivers/nbd.ko": image("need-b,need_a,built_in"),
    "kernel/lib/need_b.ko": image("need_a"),
    "kernel/lib/need-a.ko": image("old"),
    "updates/need-a.ko": image(""),
  });
  const expected = [
    `${path}/updates/need-a.ko`,
    `${path}/kernel/lib/need_b.ko`,
    `${path}/kernel/drivers/nbd.ko`,
  ];
  expect(await modules.chain("nbd")).toEqual(expected);
  expect(await modules.chain("absent")).toBeUndefined();
});

test("an index that names a file which is not there does not count: an image builder may have unpacked it", async () => {
  using directory = new TemporaryDirectory();
  const modules = tree(directory, { "modules.dep": "kernel/nbd.ko.xz:\n", "kernel/nbd.ko": image("") });
  expect(await modules.chain("nbd")).toEqual([directory.join("kernel/nbd.ko")]);
});

test("what is built in is known", () => {
  using directory = new TemporaryDirectory();
  const modules = tree(directory, {
    "modules.builtin": "kernel/drivers/block/nbd.ko\nkernel/fs/ext4-x.ko\n",
  });
  expect(["nbd", "ext4_x", "ext4"].map((name) => modules.isBuiltIn(name))).toEqual([true, true, false]);
});

test("the tree is the first that is there for the kernel", () => {
  using directory = new TemporaryDirectory();
  writeFiles(directory.path, { "one/6.1/x": "", "two/6.1/x": "", "two/6.2/x": "" });
  const roots = [directory.join("one"), directory.join("two")];
  expect(ModuleTree.find("6.1", roots)?.directory).toBe(directory.join("one/6.1"));
  expect(ModuleTree.find("6.2", roots)?.directory).toBe(directory.join("two/6.2"));
  expect(ModuleTree.find("6.3", roots)).toBeUndefined();
});

test("parameters are words; those of the kernel's command line are found by the module's name", () => {
  expect(parameterWords({ max_part: 31, nbds_max: undefined, zero: 0 })).toEqual(["max_part=31", "zero=0"]);
  const line = "root=/dev/sda nbd.max_part=8 ublk-drv.ublks_max=4 nbdx.a=1 nbd.nbds_max=2 quiet";
  expect(commandLineWords("nbd", line)).toEqual(["max_part=8", "nbds_max=2"]);
  expect(commandLineWords("ublk_drv", line)).toEqual(["ublks_max=4"]);
});
