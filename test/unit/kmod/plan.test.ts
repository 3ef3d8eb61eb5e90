/** Goal: the plan says in advance how a module would be loaded, or what prevents that. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { chmodSync } from "node:fs";
import { ensureModule } from "../../../src/kmod/ensure.ts";
import { planModule } from "../../../src/kmod/plan.ts";
import type { ModuleSystem } from "../../../src/kmod/system.ts";
import { writeFiles } from "../../support/files.ts";
import { TemporaryDirectory } from "../../support/temporary.ts";

let directory: TemporaryDirectory;
let system: ModuleSystem;

beforeEach(() => {
  directory = new TemporaryDirectory();
  system = {
    release: "6.12.9",
    roots: [directory.join("modules"), directory.join("more")],
    sys: directory.join("sys"),
    proc: directory.join("proc"),
    path: directory.join("bin"),
  };
  writeFiles(directory.path, { "sys/module/kernel/x": "", "proc/cmdline": "quiet\n" });
});

afterEach(() => directory[Symbol.dispose]());

const INDEX = { "modules/6.12.9/modules.dep": "a/nbd.ko:\n", "modules/6.12.9/a/nbd.ko": "" };

/** A modprobe that does what the script says. */
function modprobe(script: string): void {
  writeFiles(directory.path, { "bin/modprobe": `#!/bin/sh\n${script}\n` });
  chmodSync(directory.join("bin/modprobe"), 0o755);
}

test("loaded, and whether it could be loaded anew", async () => {
  writeFiles(directory.path, { "sys/module/nbd/initstate": "live\n", "sys/module/ublk_drv/x": "" });
  expect(await planModule("nbd", system)).toEqual({ way: "loaded", builtIn: false });
  expect(await planModule("ublk_drv", system)).toEqual({ way: "loaded", builtIn: true });
});

test("by the files where there is no modprobe, and by modprobe where there is one", async () => {
  writeFiles(directory.path, INDEX);
  const files = [directory.join("modules/6.12.9/a/nbd.ko")];
  expect(await planModule("nbd", system)).toEqual({ way: "files", files });
  modprobe("exit 0");
  expect(await planModule("nbd", system)).toEqual({
    way: "modprobe",
    program: directory.join("bin/modprobe"),
    files,
  });
});

test("what is in the way, each with a remedy", async () => {
  const cause = async (): Promise<string> => {
    const plan = await planModule("nbd", system);
    if (plan.way !== "none") return plan.way;
    expect(plan.remedy).not.toBe("");
    return plan.cause;
  };
  expect(await cause()).toBe(
    `the running kernel has no modules, ${directory.join("modules")}/6.12.9 does not exist`,
  );
  writeFiles(directory.path, { "more/6.12.9/kernel/other.ko": "" });
  expect(await cause()).toBe(`there is no nbd.ko in ${directory.join("more/6.12.9")}`);
  writeFiles(directory.path, { "more/6.12.9/kernel/nbd.ko.zst": "no zstd" });
  expect(await cause()).toStartWith(`a module in ${directory.join("more/6.12.9")} cannot be read (`);
  writeFiles(directory.path, { "more/6.12.9/modules.builtin": "kernel/nbd.ko\n" });
  expect(await cause()).toBe("hidden");
  writeFiles(directory.path, { "proc/sys/kernel/modules_disabled": "1\n" });
  expect(await cause()).toBe("no module can be (kernel.modules_disabled=1)");
  system = { ...system, sys: directory.join("nowhere") };
  expect(await cause()).toBe("/sys is missing");
});

test("modprobe is given the parameters", async () => {
  writeFiles(directory.path, INDEX);
  const { path } = directory;
  modprobe(`echo "$@" > ${path}/words; mkdir ${path}/sys/module/nbd; : > ${path}/sys/module/nbd/initstate`);
  await ensureModule("nbd", { max_part: 31, nbds_max: 4 }, undefined, system);
  expect(await Bun.file(directory.join("words")).text()).toBe("nbd max_part=31 nbds_max=4\n");
});

test("what modprobe.d puts in the module's place is not gone around", async () => {
  writeFiles(directory.path, INDEX);
  modprobe('[ "$1" = --show-depends ] && echo "install /bin/false" && exit; echo "it said no" >&2; exit 1');
  await expect(ensureModule("nbd", {}, undefined, system)).rejects.toThrow(
    'the nbd driver cannot be loaded, modprobe.d has another command for it (it said no): look for "install nbd"',
  );
});

test("a module that is there with other parameters is told of, and left alone", async () => {
  writeFiles(directory.path, {
    "sys/module/nbd/initstate": "live\n",
    "sys/module/nbd/parameters/max_part": "0\n",
    "sys/module/nbd/parameters/nbds_max": "16\n",
  });
  const lines: string[] = [];
  await ensureModule("nbd", { max_part: 31, nbds_max: 16 }, (line) => lines.push(line), system);
  expect(lines).toEqual([
    'nbd is there already with max_part=0 instead of 31: "modprobe -r nbd" first, while nothing is attached',
  ]);
});
