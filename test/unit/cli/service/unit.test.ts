/** Goal: a unit contains what was requested, whatever a name contains; relative names and unfit options are found. */
import { describe, expect, test } from "bun:test";
import { nodeOf, unitName, unitText } from "../../../../src/cli/service/unit.ts";
import { planWords } from "../../../../src/cli/service/words.ts";
import { expectLine, tsbuse } from "../tsbuse.ts";

test.each<[string, string | undefined]>([
  ["data", "tsbuse-data.service"],
  ["a-b.c_d:1", "tsbuse-a-b.c_d:1.service"],
  ["my disk@2 ü\\", String.raw`tsbuse-my\x20disk\x402\x20\xc3\xbc\x5c.service`],
  ["", undefined],
  ["a/b", undefined],
  ["a\nb", undefined],
  ["x".repeat(250), undefined],
])("the unit of %p", (name, unit) => expect(unitName(name)).toBe(unit));

const PLAN = {
  name: "d",
  program: "/usr/local/bin/tsbuse",
  words: ["loop", "/srv/d.img", "/dev/ublkb7", "--recover"],
  target: "/dev/ublkb7",
  files: ["/srv/d.img"],
};

/** The lines that begin with this. */
function linesOf(text: string, ...keys: readonly string[]): string[] {
  return text.split("\n").filter((line) => keys.some((key) => line.startsWith(`${key}=`)));
}

test("the order of a service, its device, its mounts and what it needs", () => {
  const text = unitText(PLAN);
  expect(nodeOf(text)).toBe("/dev/ublkb7");
  expect(linesOf(text, "RequiresMountsFor", "Wants", "Before", "Conflicts", "ExecStart", "WantedBy")).toEqual(
    [
      "RequiresMountsFor=/usr/local/bin/tsbuse /srv/d.img",
      "Wants=blockdev@dev-ublkb7.target",
      "Before=blockdev@dev-ublkb7.target shutdown.target",
      "Conflicts=shutdown.target",
      "ExecStart=/usr/local/bin/tsbuse loop /srv/d.img /dev/ublkb7 --recover",
      "WantedBy=multi-user.target dev-ublkb7.device",
    ],
  );
  const server = unitText({ ...PLAN, target: "unix:/run/d", files: ["/dev/disk/by-id/x-1 y", "/srv/a%b c"] });
  expect(nodeOf(server)).toBeUndefined();
  expect(linesOf(server, "RequiresMountsFor", "Wants", "Before", "WantedBy")).toEqual([
    'RequiresMountsFor=/usr/local/bin/tsbuse "/srv/a%%b c"',
    String.raw`Wants=dev-disk-by\x2did-x\x2d1\x20y.device`,
    "Before=shutdown.target",
    "WantedBy=multi-user.target",
  ]);
});

test.each([
  ["loop", "/dev/nbd0", "process"],
  ["run", "/dev/nbd0", "mixed"],
  ["loop", "/dev/ublkb0", "mixed"],
])("who is killed with a server that hangs: %s on %s", (device, target, mode) => {
  const text = unitText({ ...PLAN, words: [device, "x", target], target });
  expect(linesOf(text, "KillMode")).toEqual([`KillMode=${mode}`]);
});

test.each([
  ["a b", '"a b"'],
  ["50%", "50%%"],
  ["$HOME", '"$$HOME"'],
  ["'", `"'"`],
  ['"\\', String.raw`"\"\\"`],
  [";", '";"'],
  ["", '""'],
  ["a\nb\tü", '"a\\x0ab\\x09ü"'],
])("the word %p of a command", (word, quoted) => {
  const line = linesOf(unitText({ ...PLAN, words: [word] }), "ExecStart")[0];
  expect(line).toBe(`ExecStart=/usr/local/bin/tsbuse ${quoted}`);
});

describe("names of files become full ones", () => {
  const here = process.cwd();

  test.each<[string[], string[], string[]]>([
    [["loop", "a b", "/dev/nbd0"], ["loop", `${here}/a b`, "/dev/nbd0"], [`${here}/a b`]],
    [
      ["loop", "--layer", "cow:file=c", "/dev/vdb", "--layer=error:rate=1,trigger=../t", "/dev/ublkb0"],
      [
        "loop",
        "--layer",
        `cow:file=${here}/c`,
        "/dev/vdb",
        `--layer=error:rate=1,trigger=${here.replace(/\/[^/]*$/, "")}/t`,
        "/dev/ublkb0",
      ],
      [`${here}/c`, `${here.replace(/\/[^/]*$/, "")}/t`, "/dev/vdb"],
    ],
    [
      ["run", "m.ts", "unix:s", "--", "key=rel", "x"],
      ["run", `${here}/m.ts`, `unix:${here}/s`, "--", "key=rel", "x"],
      [`${here}/m.ts`],
    ],
    [["ramdisk", "1M", "tcp:127.0.0.1:1"], ["ramdisk", "1M", "tcp:127.0.0.1:1"], []],
    [["nbd", "unix:s", "/dev/ublkb0"], ["nbd", `nbd+unix:///?socket=${here}/s`, "/dev/ublkb0"], []],
    [
      ["nbd", "nbd+unix:///a?socket=s", "unix:t", "--connections", "2"],
      ["nbd", `nbd+unix:///a?socket=${here}/s`, `unix:${here}/t`, "--connections", "2"],
      [],
    ],
  ])("%p", async (words, made, files) =>
    expect(await planWords(words)).toMatchObject({ words: made, files, target: expect.any(String) }),
  );
});

test.each([
  [["a/b", "--", "ramdisk", "1M", "/dev/nbd0"], '"a/b" is not a valid service name', "give one without"],
  [["a"], "an argument is missing", "tsbuse install-service takes NAME -- DEVICE TARGET"],
  [["a", "--", "frob"], 'unknown device "frob"', 'see "tsbuse --help"'],
  [["a", "--", "list"], '"list" is not a device', 'see "tsbuse --help"'],
  [["a", "--", "loop", "/dev/nbd0"], "an argument is missing", "tsbuse loop takes FILE TARGET"],
  [["a", "--", "ramdisk", "1M", "ublk"], '"ublk" may be another node each time', "give one with a number"],
  [["a", "--", "ramdisk", "1M", "/dev/nbd0", "--daemon"], "--daemon is not for a service", "leave it out"],
  [
    ["a", "--", "loop", "x", "/dev/ublkb0", "--take-over"],
    "--take-over is not for a service",
    "leave it out",
  ],
  [["a", "--remove", "--", "ramdisk"], "--remove takes the name alone", "leave out what follows"],
])("install-service %p is refused", (words, cause, remedy) => {
  expectLine(tsbuse("install-service", ...words), 2, cause, remedy);
});
