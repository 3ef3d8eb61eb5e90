/** What README and the pages show works: the device passes the check, and links, commands and options are real. */
import { expect, test } from "bun:test";
import { existsSync, writeFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import { checkDevice } from "../../src/check/check.ts";
import { allCommands } from "../../src/cli/commands.ts";
import { allOptions, GENERAL_OPTIONS, SERVING_OPTIONS } from "../../src/cli/help/documentation.ts";
import { loadDevice } from "../../src/module/load.ts";
import { commandsIn, countingDevice, readPage, ROOT } from "../support/pages.ts";
import { TemporaryDirectory } from "../support/temporary.ts";

const PAGES = [
  "README.md",
  "CONTRIBUTING.md",
  "bench/README.md",
  "docs/architecture.md",
  "docs/devices.md",
  "docs/operations.md",
  "docs/rescue.md",
] as const;

test("the device to begin with does what it says, and is without fault", async () => {
  using directory = new TemporaryDirectory();
  const path = directory.join("counting.ts");
  writeFileSync(path, countingDevice());
  const device = await loadDevice(path, {});
  const target = new Uint8Array(1024).fill(0xff);
  await device.read(target, 7 * 512);
  const text = Buffer.from(target).toString();
  expect(text.split("\0").filter((part) => part !== "")).toEqual(["block 7\n", "block 8\n"]);
  expect(await checkDevice(() => loadDevice(path, {}), { ops: 200 })).toMatchObject({ failure: undefined });
});

/** The anchor that GitHub gives a heading. */
function anchorOf(heading: string): string {
  return heading
    .toLowerCase()
    .replaceAll(/[^\p{L}\p{N} _-]/gu, "")
    .replaceAll(" ", "-");
}

function anchorsIn(page: string): string[] {
  return [...readPage(page).matchAll(/^#+ (.+)$/gm)].map(([, heading = ""]) => anchorOf(heading));
}

test.each(PAGES)("the files and headings that %s points to are there", (page) => {
  const links = [...readPage(page).matchAll(/\]\(([^):]+)\)/g)].map(([, link = ""]) => link);
  const dead = links.filter((link) => {
    const [file = "", anchor] = link.split("#");
    const path = file === "" ? page : normalize(join(dirname(page), file));
    return !existsSync(join(ROOT, path)) || (anchor !== undefined && !anchorsIn(path).includes(anchor));
  });
  expect(dead).toEqual([]);
});

test("every page is linked from README, which names the two commands that set everything up", () => {
  const readme = readPage("README.md");
  for (const page of PAGES.slice(1)) expect(readme).toContain(`](${page})`);
  for (const script of ["./scripts/demo", "./scripts/test"]) expect(readme).toContain(script);
});

test("architecture names source files by links alone, so that they are looked for", () => {
  const linked = [...readPage("docs/architecture.md").matchAll(/\]\(\.\.\/(src\/[^)]+)\)/g)];
  expect(linked.length).toBeGreaterThan(25);
  const text = readPage("docs/architecture.md").replaceAll(/\[[^\]]*\]\([^)]*\)/g, "");
  const named = [...text.matchAll(/\bsrc\/[\w/.-]+\w/g)].map(([path]) => path);
  expect(named.filter((path) => !existsSync(join(ROOT, path)))).toEqual([]);
});

/** The commands of tsbuse in a page's blocks: the words up to a comment or an operator of the shell. */
function ownCommandsIn(page: string): string[][] {
  const lines = readPage(page).matchAll(/^ {4}(?:sudo (?:-E )?)?tsbuse (?! )([^#>|&\n]*)/gm);
  return [...lines].map(([, words = ""]) => words.trim().split(/\s+/));
}

test.each(PAGES)("the commands in %s have the names and options of real ones", async (page) => {
  const known = new Map((await allCommands()).map((one) => [one.text.name, allOptions(one)]));
  const wrong = ownCommandsIn(page).filter(([name = "", ...words]) => {
    if (/^[A-Z]+$/.test(name)) return false;
    const options = known.get(name);
    // Of a command that is given to another one, its words count as well.
    const inner = words.flatMap((word) => known.get(word) ?? []);
    const all = [...(options ?? []), ...inner, ...GENERAL_OPTIONS];
    const names = new Set(all.map((option) => `--${option.name}`));
    const given = words.filter((word) => /^--[a-z]/.test(word));
    return options === undefined || given.some((word) => !names.has(word));
  });
  expect(wrong).toEqual([]);
});

test("the pages have commands to look at", () => {
  expect(PAGES.flatMap(ownCommandsIn).length).toBeGreaterThan(40);
});

/** What runs the commands of README and docs/, with other names of nodes and files. */
const RUN_BY: Readonly<Record<string, readonly string[]>> = {
  "scripts/test.ts": ["./scripts/test"],
  // What makes a release, and takes as long.
  "scripts/build-rescue.ts": ["bun run build:rescue --all"],
  "scripts/swap": ["tsbuse loop DISK /dev/ublkb0 --direct --swap"],
  "test/boot/archive.test.ts": [
    "bun run build:rescue",
    "cat dist/tsbuse-rescue.cpio.zst >> initrd.img",
    "tsbuse ramdisk 64M /dev/nbd0 --initrd",
    "mke2fs /dev/nbd0",
    "mount /dev/nbd0 /mnt",
  ],
  "test/boot/distribution.test.ts": ["tsbuse install-initramfs", "tsbuse install-initramfs --remove"],
  "test/boot/service-session.sh": [
    "truncate -s 1G /srv/data.img",
    "tsbuse install-service data -- loop /srv/data.img /dev/ublkb0 --recover",
    "systemctl start tsbuse-data.service",
    "mkfs.ext4 /dev/ublkb0",
    "systemctl daemon-reload",
    "mount /data",
    "sha256sum --check --ignore-missing SHA256SUMS",
    "install -m 755 tsbuse-linux-x64 /usr/local/bin/tsbuse",
    "kill -9 $(systemctl show --property MainPID --value tsbuse-data.service)",
    "tsbuse list",
  ],
  "test/conformance/bucket.test.ts": [
    "export AWS_ACCESS_KEY_ID=… AWS_SECRET_ACCESS_KEY=… AWS_ENDPOINT=https://s3.example.org AWS_REGION=…",
    "tsbuse bucket s3://disks/db /dev/nbd0 --create 1T",
    "tsbuse bucket s3://disks/db /dev/nbd0",
    "tsbuse bucket s3://disks/db /dev/nbd0 --flush disk --journal /var/lib/tsbuse/db",
  ],
  "test/conformance/command-line.test.ts": [
    "tsbuse loop disk.img unix:/tmp/disk.sock",
    "tsbuse ramdisk 512M unix:/tmp/disk.sock",
    "qemu-img info 'nbd+unix:///?socket=/tmp/disk.sock'",
  ],
  "test/conformance/crash.test.ts": [
    "tsbuse crash disk.record --base before.img --check ext4 --sector 4096",
    "tsbuse crash disk.record --base before.img --check sqlite:/db --sector 4096",
  ],
  "test/conformance/metrics.test.ts": ["tsbuse loop disk.img auto --metrics :9809"],
  "test/kernel/crash.test.ts": [
    "cp --sparse=always disk.img before.img",
    "tsbuse loop disk.img /dev/ublkb0 --layer record:file=disk.record",
  ],
  "test/kernel/handover.test.ts": [
    "tsbuse handover /dev/nbd0 loop disk.img",
    "tsbuse ramdisk 512M /dev/ublkb1 --handover",
    "tsbuse handover /dev/ublkb1 ramdisk 512M",
  ],
  "test/kernel/module.test.ts": [
    "tsbuse new mydisk",
    "tsbuse run ./mydisk/device.ts auto",
    "tsbuse run ./mydisk/device.ts auto -- size=1G",
    "tsbuse run ./mydisk/device.ts auto --watch",
  ],
  "test/kernel/nbd-remote.test.ts": ["tsbuse nbd nbd://store.example/golden auto --layer cow:file=mine.cow"],
  "test/kernel/overlay.test.ts": ["tsbuse loop golden.img /dev/nbd0 --layer cow:file=changes.cow"],
  "test/kernel/pages.test.ts": [
    "./scripts/demo",
    "tsbuse ramdisk 512M /dev/nbd0",
    "mkfs.ext4 /dev/nbd0 && mount /dev/nbd0 /mnt",
    "tsbuse run ./counting.ts auto --run 'dd if=$TSBUSE_DEVICE bs=512 skip=7 count=1'",
    "truncate -s 1G disk.img",
    "tsbuse loop disk.img /dev/ublkb0 --recover",
    "tsbuse trace /dev/ublkb0 --seconds 60 --write disk.trace",
    "tsbuse replay disk.trace ramdisk --fast",
  ],
  "test/kernel/trace.test.ts": [
    "tsbuse trace /dev/ublkb0",
    "tsbuse replay disk.trace /dev/nvme1n1 --destroy",
  ],
  "test/kernel/ublk.test.ts": ["tsbuse ramdisk 512M /dev/ublkb0"],
  "test/unit/cli/commands/top.test.ts": ["tsbuse top", "tsbuse top /dev/ublkb0 --json"],
  "test/unit/cli/help/completions.test.ts": ["tsbuse completions bash > /etc/bash_completion.d/tsbuse"],
  "test/unit/cli/help/man-page.test.ts": ["tsbuse man | man -l -"],
  "test/unit/module/starter.test.ts": [
    "tsbuse check ./mydisk/device.ts",
    "tsbuse check ./mydisk/device.ts -- size=64M",
  ],
};
test("each command in the pages is run by a test or a script", () => {
  const known = Object.values(RUN_BY).flat();
  const commands = PAGES.filter((page) => /^(README|docs\/)/.test(page)).flatMap(commandsIn);
  expect(commands.filter((command) => !known.includes(command))).toEqual([]);
  expect(known.filter((command) => !commands.includes(command))).toEqual([]);
  expect(Object.keys(RUN_BY).filter((path) => !existsSync(join(ROOT, path)))).toEqual([]);
});

test("the table of options has each one that every device takes, once, with what stands for its value", () => {
  const table = /^Every device takes:\n\n(?:\|.*\n)+/m.exec(readPage("docs/operations.md"))?.[0] ?? "";
  const terms = [...table.matchAll(/^\| (`.*?`) \|/gm)].map(([, cell = ""]) => cell);
  const listed = terms.flatMap((cell) => cell.replaceAll("`", "").split(", "));
  const options = SERVING_OPTIONS.flatMap(([, group]) => group);
  const defined = options.map(({ name, value }) => [`--${name}`, value ?? []].flat().join(" "));
  expect(listed.toSorted()).toEqual(defined.toSorted());
});
