/** The project's own rules, on its own sources. Each test lists what breaks the rule. */
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { COMMANDS } from "../../src/cli/commands.ts";
import { WORKER_MODULES } from "../../src/serving/workers.ts";
import { codeOf, importsOf, type Source, sourcesIn } from "../support/sources.ts";

const LINES_MAX = 400;
/** oxfmt keeps code to 110; comments are wrapped by hand. A line may be longer because of a message in it. */
const COLUMNS_MAX = 120;

const EXPORTED_VALUE = /^export (?:async )?(?:function\*?|class|const) (\w+)/gm;
/** Devices that are there to be read. */
const EXAMPLES: ReadonlySet<string> = new Set(["devices/http.ts: HttpDisk"]);

const SOURCES = sourcesIn("src");
const DEVICES = sourcesIn("devices");
const ALL = [...SOURCES, ...DEVICES, ...sourcesIn("scripts")];
const TESTS = sourcesIn("test");

/**
 * The parts of src/, files and folders, from the ground up. A part may import what stands below it, and a folder
 * what lies in it.
 */
const ORDER: readonly (readonly string[])[] = [
  ["uapi"],
  ["errors"],
  ["libc"],
  ["device", "kmod", "record", "serving", "values"],
  ["identity", "layers"],
  ["dispatch", "nodes", "transport"],
  ["queues"],
  ["check", "nbd", "replay", "ublk"],
  ["control"],
  ["target", "trace"],
  ["attach"],
  ["crash", "index"],
  ["module"],
  ["cli"],
  ["main"],
];

/** `nbd` for `src/nbd/nodes.ts`, `errors` for `src/errors.ts`. */
function partOf(path: string): string {
  return path.split("/")[1]?.replace(/\.ts$/, "") ?? "";
}

function rankOf(part: string): number {
  return ORDER.findIndex((parts) => parts.includes(part));
}

/** `file: what it imports` for each import that `isWrong`. */
function wrongImports(files: readonly Source[], isWrong: (name: string, from: string) => boolean): string[] {
  return files.flatMap(({ path, imports }) =>
    imports.filter((name) => isWrong(name, path)).map((name) => `${path}: ${name}`),
  );
}

/** `file:line` for each line that `isWrong`. */
function wrongLines(files: readonly Source[], isWrong: (line: string) => boolean): string[] {
  return files.flatMap(({ path, lines }) =>
    lines.flatMap((line, index) => (isWrong(line) ? [`${path}:${index + 1}`] : [])),
  );
}

describe("imports", () => {
  test("every part of src/ has its place in the order", () => {
    const parts = new Set(SOURCES.map(({ path }) => partOf(path)));
    expect([...parts].filter((part) => rankOf(part) < 0)).toEqual([]);
  });

  test("point one way: each part takes from those below it", () => {
    const upwards = wrongImports(SOURCES, (name, from) => {
      if (!name.startsWith("src/")) return false;
      const [part, imported] = [partOf(from), partOf(name)];
      return part !== imported && rankOf(imported) >= rankOf(part);
    });
    expect(upwards).toEqual([]);
  });

  test("src/ takes from devices/ in the command line alone", () => {
    const wrong = wrongImports(
      SOURCES,
      (name, from) => name.startsWith("devices/") && partOf(from) !== "cli",
    );
    expect(wrong).toEqual([]);
  });

  test("citty and consola are the command line's", () => {
    const others = ALL.filter(({ path }) => !path.startsWith("src/cli/"));
    expect(wrongImports(others, (name) => /^(citty|consola)\b/.test(name))).toEqual([]);
  });

  test("a device takes the public API, modules of node and bun, and its neighbours", () => {
    const wrong = wrongImports(DEVICES, (name) => !/^(tsbuse|(node|bun):.+|devices\/.+)$/.test(name));
    expect(wrong).toEqual([]);
  });
});

/** Whether a line holds a string, and is no comment. */
function isMessage(line: string): boolean {
  return /["`]/.test(line) && !/^\s*(\/\*\*|\*|\/\/)/.test(line);
}

/** Whether code without comments and strings has the type. */
function usesAny(code: string): boolean {
  return /(?:[:<|&,]|\bas|\bextends)\s*any\b|\bany\[\]/.test(code);
}

test("each command has a file, and each file a command", () => {
  const files = SOURCES.filter(({ path }) => path.startsWith("src/cli/commands/")).map(({ path }) => path);
  expect(files.toSorted()).toEqual(
    Object.keys(COMMANDS)
      .map((name) => `src/cli/commands/${name}.ts`)
      .toSorted(),
  );
});

describe("workers", () => {
  test("each module in src/ is in the table, and each entry of the table is a module", () => {
    const modules = SOURCES.filter(({ path }) => path.endsWith(".worker.ts")).map(({ path }) => path);
    expect(modules.toSorted()).toEqual(WORKER_MODULES.map((module) => join("src", module)).toSorted());
  });

  test("src/, devices/ and scripts/ start them by the table alone", () => {
    const starters = ALL.filter(({ code }) => /\bnew Worker\(/.test(code)).map(({ path }) => path);
    expect(starters).toEqual(["src/serving/workers.ts"]);
  });

  test("a test that starts one of its own names a module", () => {
    const paths = new Set(TESTS.map(({ path }) => path));
    const missing = TESTS.flatMap(({ path, lines }) =>
      [...lines.join("\n").matchAll(/\bnew URL\("([^"$]+\.worker\.ts)"/g)]
        .map(([, name = ""]) => join(dirname(path), name))
        .filter((name) => !paths.has(name)),
    );
    expect(missing).toEqual([]);
  });
});

test("CONTRIBUTING names every part of src/", () => {
  const page = readFileSync(join(import.meta.dir, "../../CONTRIBUTING.md"), "utf8");
  const parts = [...new Set(SOURCES.map(({ path }) => path.split("/").slice(0, 2).join("/")))];
  expect(parts.filter((part) => !page.includes(`\`${part}`))).toEqual([]);
});

describe("text", () => {
  test(`no file has more than ${LINES_MAX} lines`, () => {
    const long = ALL.filter(({ lines }) => lines.length - 1 > LINES_MAX);
    expect(long.map(({ path, lines }) => `${path}: ${lines.length - 1}`)).toEqual([]);
  });

  test(`no line has more than ${COLUMNS_MAX} columns, but for messages`, () => {
    expect(wrongLines(ALL, (line) => line.length > COLUMNS_MAX && !isMessage(line))).toEqual([]);
  });

  test("every function, class and constant that is exported is used by another file", () => {
    const texts = [...ALL, ...TESTS].map(({ path, lines }) => ({ path, text: lines.join("\n") }));
    const isUsed = (path: string, name: string): boolean =>
      texts.some((other) => other.path !== path && new RegExp(`\\b${name}\\b`).test(other.text));
    const unused = [...SOURCES, ...DEVICES].flatMap(({ path, code }) =>
      [...code.matchAll(EXPORTED_VALUE)].flatMap(([, name = ""]) =>
        isUsed(path, name) ? [] : `${path}: ${name}`,
      ),
    );
    expect(unused.filter((name) => !EXAMPLES.has(name))).toEqual([]);
  });

  test("nothing is left to do", () => {
    expect(wrongLines(ALL, (line) => /\b(TODO|FIXME|XXX)\b/.test(line))).toEqual([]);
  });

  test("the type any is not used", () => {
    expect(ALL.filter(({ code }) => usesAny(code)).map(({ path }) => path)).toEqual([]);
  });
});

describe("these tests", () => {
  test("see all files", () => {
    const some = ["src/nbd/connection/connection.ts", "src/errors.ts", "devices/loop.ts", "scripts/build.ts"];
    expect(ALL.map(({ path }) => path)).toEqual(expect.arrayContaining(some));
  });

  test("see every form of an import", () => {
    const text =
      'import "a";\nimport { b } from "../b.ts";\nexport * from "./c.ts";\nawait import("./d/e.ts");';
    expect(importsOf("src/x/y.ts", text)).toEqual(["a", "src/b.ts", "src/x/c.ts", "src/x/d/e.ts"]);
  });

  test.each(["let a: any;", "b as any", "Map<string, any>", "c: string | any", "any[]", "<T extends any>"])(
    "see the type in %p",
    (code) => expect(usesAny(code)).toBe(true),
  );

  test("see code, and neither comments nor strings", () => {
    expect(codeOf("let a: any; // any\n/** any */ const b = \"any\" + 'any';")).toBe(
      'let a: any; \n const b = "" + "";',
    );
  });
});
