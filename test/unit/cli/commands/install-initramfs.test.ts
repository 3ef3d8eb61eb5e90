/** Goal: the files are installed completely for the builder of the system, and removed; no other file is touched. */
import { expect, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { TemporaryDirectory } from "../../../support/temporary.ts";
import { expectLine, tsbuse } from "../tsbuse.ts";

const SCRIPTS = join(import.meta.dir, "../../../../scripts/rescue");
const DRACUT = "usr/lib/dracut/modules.d/90tsbuse";

/** The destination of each script. */
const FILES = {
  dracut: {
    [`${DRACUT}/module-setup.sh`]: "dracut/module-setup.sh",
    [`${DRACUT}/settled.sh`]: "dracut/settled.sh",
    [`${DRACUT}/finished.sh`]: "dracut/finished.sh",
    [`${DRACUT}/at-boot.sh`]: "at-boot.sh",
  },
  "initramfs-tools": {
    "etc/initramfs-tools/hooks/tsbuse": "initramfs-tools/hook.sh",
    "etc/initramfs-tools/scripts/init-premount/tsbuse": "at-boot.sh",
  },
} as const;

const SIGNS = { dracut: "usr/lib/dracut/modules.d", "initramfs-tools": "usr/share/initramfs-tools" } as const;
const NEXT = { dracut: "sudo dracut -f\n", "initramfs-tools": "sudo update-initramfs -u\n" } as const;

/** A root directory with these builders, and tsbuse where it belongs. */
function rootWith(...builders: readonly (keyof typeof SIGNS)[]): TemporaryDirectory {
  const root = new TemporaryDirectory();
  for (const builder of builders) mkdirSync(root.join(SIGNS[builder]), { recursive: true });
  write(root.join("usr/local/bin/tsbuse"), "");
  return root;
}

function write(path: string, text: string): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, text);
}

/** The files, without their directories. */
function filesIn(root: TemporaryDirectory): string[] {
  const names = readdirSync(root.path, { recursive: true, encoding: "utf8" });
  return names
    .filter((name) => statSync(root.join(name)).isFile() && !name.startsWith("usr/local"))
    .toSorted();
}

test.each(["dracut", "initramfs-tools"] as const)("%s", (builder) => {
  using root = rootWith(builder);
  const before = filesIn(root);
  // A second installation changes nothing, except that it replaces a file of an older version.
  for (let time = 0; time < 2; time += 1) {
    const { status, stdout, stderr } = tsbuse("install-initramfs", "--root", root.path);
    expect([status, stdout]).toEqual([0, NEXT[builder]]);
    expect(stderr).not.toContain("warning");
    expect(filesIn(root)).toEqual(Object.keys(FILES[builder]).toSorted());
    for (const [path, script] of Object.entries(FILES[builder])) {
      expect(readFileSync(root.join(path), "utf8")).toBe(readFileSync(join(SCRIPTS, script), "utf8"));
      expect(statSync(root.join(path)).mode & 0o777).toBe(0o755);
      writeFileSync(root.join(path), `# put here by "tsbuse install-initramfs"\n`);
    }
  }
  const { status, stdout } = tsbuse("install-initramfs", "--remove", "--root", root.path);
  expect([status, stdout]).toEqual([0, NEXT[builder]]);
  expect(filesIn(root)).toEqual(before);
  expect(existsSync(root.join(DRACUT))).toBe(false);
  expect(tsbuse("install-initramfs", "--remove", "--root", root.path)).toEqual({
    status: 0,
    stdout: "",
    stderr: "",
  });
});

test("which one is asked for when it cannot be told", () => {
  using none = rootWith();
  using both = rootWith("dracut", "initramfs-tools");
  for (const root of [none, both]) {
    const { status, stdout, stderr } = tsbuse("install-initramfs", "--root", root.path);
    expect([status, stdout]).toEqual([1, ""]);
    expect(stderr).toMatch(/^tsbuse: .* --dracut or --initramfs-tools\n$/);
    expect(filesIn(root)).toEqual([]);
  }
  expect(tsbuse("install-initramfs", "--dracut", "--root", none.path).status).toBe(0);
  expect(filesIn(none)).toHaveLength(4);
  expect(tsbuse("install-initramfs", "--dracut", "--initramfs-tools").status).toBe(2);
  expect(tsbuse("install-initramfs", "--root", none.join("nothing")).stderr).toContain("does not exist");
});

test("a file that is not ours is neither replaced nor removed, and nothing beside it is written", () => {
  using root = rootWith("dracut");
  const path = root.join(`${DRACUT}/settled.sh`);
  write(path, "mine\n");
  for (const option of [[], ["--remove"]]) {
    const ended = tsbuse("install-initramfs", "--root", root.path, ...option);
    expectLine(ended, 1, `${path} was not written by tsbuse`, "move it away, then run this again");
    expect(filesIn(root)).toEqual([`${DRACUT}/settled.sh`]);
  }
  expect(readFileSync(path, "utf8")).toBe("mine\n");
});

test("a file of somebody's in the module's directory stays", () => {
  using root = rootWith("dracut");
  tsbuse("install-initramfs", "--root", root.path);
  write(root.join(`${DRACUT}/other.sh`), "mine\n");
  expect(tsbuse("install-initramfs", "--remove", "--root", root.path).status).toBe(0);
  expect(filesIn(root)).toEqual([`${DRACUT}/other.sh`]);
});

test("when one of the files cannot be written, the others are as before", () => {
  using root = rootWith("initramfs-tools");
  // A file is in the place of a directory.
  write(root.join("etc/initramfs-tools/scripts/init-premount"), "");
  expectLine(tsbuse("install-initramfs", "--root", root.path), 1, "the files for", "cannot be written");
  expect(filesIn(root)).toEqual(["etc/initramfs-tools/scripts/init-premount"]);
});

test("a system without tsbuse in its place is warned of", () => {
  using root = rootWith("dracut");
  expect(tsbuse("install-initramfs", "--root", root.path).stderr).not.toContain("warning");
  using bare = new TemporaryDirectory();
  expect(tsbuse("install-initramfs", "--dracut", "--root", bare.path).stderr).toContain(
    "warning: there is no tsbuse",
  );
});
