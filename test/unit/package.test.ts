/** Goal: the packed library is all that a fresh project needs: it installs, is type-checked against, and runs. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { cpSync, existsSync, mkdirSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { writeFiles } from "../support/files.ts";
import { run, sh } from "../support/shell.ts";
import { TemporaryDirectory } from "../support/temporary.ts";

const ROOT = join(import.meta.dir, "../..");
const BUN = process.execPath;
const TSC = [BUN, join(ROOT, "node_modules/typescript/bin/tsc"), "-p"];

/** All that the package is made of. It is packed as a copy: packing writes declarations beside the sources. */
const INPUTS = [
  "src",
  "devices",
  "package.json",
  "tsconfig.json",
  "scripts/tsconfig.types.json",
  "docs",
  "bench",
  "README.md",
  "CHANGELOG.md",
  "LICENSE",
];

const PROGRAM = `
import { type BlockDevice, ErrnoError, attach, errno, serve } from "tsbuse";

const device: BlockDevice = {
  size: 4096,
  read(target, offset) {
    if (offset > 0) throw new ErrnoError("ENOSPC");
    target.fill(7);
  },
};
const bytes = new Uint8Array(512);
await device.read(bytes, 0);
console.log(bytes[0], errno.ENOSPC, typeof attach, typeof serve);
`;

let directory: TemporaryDirectory;

/** The fresh project, with the package installed and nothing else: no types of bun, no network. */
beforeAll(async () => {
  directory = new TemporaryDirectory();
  const copy = directory.join("copy");
  mkdirSync(copy);
  for (const name of INPUTS) cpSync(join(ROOT, name), join(copy, name), { recursive: true });
  symlinkSync(join(ROOT, "node_modules"), join(copy, "node_modules"));
  await sh(`cd '${copy}' && '${BUN}' pm pack --quiet --destination '${directory.path}'`);
  await sh(`mv '${directory.path}'/tsbuse-*.tgz '${directory.join("tsbuse.tgz")}'`);
  const dependencies = ["citty", "consola", "xz-decompress"];
  for (const name of dependencies) {
    const archive = directory.join(`${name}.tgz`);
    await sh(`tar czf '${archive}' -C '${ROOT}/node_modules' --transform 's,^${name},package,' ${name}`);
  }
  writeFiles(directory.join("project"), {
    "package.json": JSON.stringify({
      type: "module",
      dependencies: { tsbuse: directory.join("tsbuse.tgz") },
      overrides: Object.fromEntries(dependencies.map((name) => [name, directory.join(`${name}.tgz`)])),
    }),
    "program.ts": PROGRAM,
    "tsconfig.json": JSON.stringify({
      compilerOptions: {
        target: "esnext",
        module: "nodenext",
        lib: ["esnext", "dom"],
        types: [],
        strict: true,
        noEmit: true,
      },
    }),
  });
  await sh(`cd '${directory.join("project")}' && BUN_CONFIG_REGISTRY=http://127.0.0.1:1 '${BUN}' install`);
}, 60_000);

afterAll(() => directory[Symbol.dispose]());

const inProject = (name: string): string => join(directory.join("project"), name);

test("a program is type-checked against it", async () => {
  expect(await run([...TSC, inProject("tsconfig.json")])).toEqual({ status: 0, stdout: "", stderr: "" });
});

test("a program runs with it", async () => {
  expect(await run([BUN, inProject("program.ts")])).toEqual({
    status: 0,
    stdout: "7 28 function function\n",
    stderr: "",
  });
});

test("README's pages are in it, and what they show", () => {
  const pages = ["docs/devices.md", "docs/operations.md", "bench/README.md"];
  for (const name of [...pages, "bench/glance.svg", "docs/demo.svg"])
    expect(existsSync(inProject(`node_modules/tsbuse/${name}`))).toBe(true);
  expect(existsSync(inProject("node_modules/tsbuse/bench/results.json"))).toBe(false);
});

test("the command line is in it, the tests and the tools are not", async () => {
  const main = inProject("node_modules/tsbuse/src/main.ts");
  const { version }: { version: string } = await Bun.file(join(ROOT, "package.json")).json();
  expect(await run([BUN, main, "--version"])).toEqual({
    status: 0,
    stdout: `tsbuse ${version}\n`,
    stderr: "",
  });
  for (const name of ["test", "scripts", "tsconfig.json"]) {
    expect(existsSync(inProject(`node_modules/tsbuse/${name}`))).toBe(false);
  }
});
