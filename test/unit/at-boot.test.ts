/**
 * Goal: the script that attaches at boot passes tsbuse the words of the kernel's command line, whatever they contain,
 * and ends whatever tsbuse says. It is run by each shell that an initramfs may have.
 */
import { describe, expect, test } from "bun:test";
import { chmodSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Finished, run } from "../support/shell.ts";
import { TemporaryDirectory } from "../support/temporary.ts";

const SCRIPT = readFileSync(join(import.meta.dir, "../../scripts/rescue/at-boot.sh"), "utf8");

/** Writes its words to a file, one per line, and an empty line. One of the words decides how it ends. */
const FAKE = `#!/bin/sh
printf '%s\\n' "$@" "" >>"\${0%/*}/calls"
for word; do
  case $word in
    wrong) echo "tsbuse: a wrong word" >&2; exit 2 ;;
    late) [ -e "\${0%/*}/disk" ] || { echo "tsbuse: no disk" >&2; exit 1; } ;;
  esac
done
echo /dev/nbd0
`;

class AtBoot implements Disposable {
  readonly directory = new TemporaryDirectory();
  readonly #shell: readonly string[];

  constructor(shell: string, commandLine: string, tries = 2) {
    this.#shell = shell.split(" ");
    const at = (name: string) => this.directory.join(name);
    const values = {
      tsbuse: at("tsbuse"),
      command_line: at("cmdline"),
      state: at("state"),
      tries_max: `${tries}`,
    };
    let script = SCRIPT;
    for (const [name, value] of Object.entries(values)) {
      script = script.replace(new RegExp(`^${name}=/?\\w.*$`, "m"), `${name}='${value}'`);
    }
    expect(script).not.toBe(SCRIPT);
    writeFileSync(at("at-boot.sh"), script);
    writeFileSync(at("tsbuse"), FAKE);
    chmodSync(at("tsbuse"), 0o644);
    writeFileSync(at("cmdline"), `${commandLine}\n`);
  }

  run(...words: readonly string[]): Promise<Finished> {
    return run([...this.#shell, this.directory.join("at-boot.sh"), ...words], 20_000);
  }

  get calls(): string[][] {
    const path = this.directory.join("calls");
    if (!existsSync(path)) return [];
    return readFileSync(path, "utf8")
      .split("\n\n")
      .slice(0, -1)
      .map((call) => call.split("\n"));
  }

  get isDone(): boolean {
    return existsSync(this.directory.join("state/done"));
  }

  [Symbol.dispose](): void {
    this.directory[Symbol.dispose]();
  }
}

describe.each(["dash", "busybox sh", "bash"])("%s", (shell) => {
  test.each([
    ["nothing", "root=/dev/sda1 quiet", []],
    ["a device", "quiet tsbuse=ramdisk,512M,/dev/nbd0 ro", [["ramdisk", "512M", "/dev/nbd0"]]],
    [
      "two",
      "tsbuse=a,1 tsbuse=b,2",
      [
        ["a", "1"],
        ["b", "2"],
      ],
    ],
    ["doubled commas", "tsbuse=a,error:rate=1,,errno=ENOSPC,,,b", [["a", "error:rate=1,errno=ENOSPC,", "b"]]],
    [
      "blanks in quotes",
      'tsbuse="a,x y" "tsbuse=b,x  y" tsbuse=c,"x y",z',
      [
        ["a", "x y"],
        ["b", "x  y"],
        ["c", "x y", "z"],
      ],
    ],
    [
      "what a shell would take for its own",
      "tsbuse=a,*,$(touch$IFS/x),`id`,$HOME,;&|<>,\\,'",
      [["a", "*", "$(touch$IFS/x)", "`id`", "$HOME", ";&|<>", "\\", "'"]],
    ],
    [
      "options and the device's own words",
      "tsbuse=run,/d.ts,auto,--read-only,--,size=1G",
      [["run", "/d.ts", "auto", "--read-only", "--", "size=1G"]],
    ],
    ["names that only look alike", "xtsbuse=a,1 tsbuse tsbuse= tsbuse.b=c", []],
    ["words for the first process", "tsbuse=a,1 -- tsbuse=b,2", [["a", "1"]]],
    ["a quote that does not end", 'tsbuse=a,"1 2', [["a", "1 2"]]],
  ] satisfies [string, string, string[][]][])("%s", async (_, commandLine, expected) => {
    using atBoot = new AtBoot(shell, commandLine);
    const { status, stderr } = await atBoot.run();
    expect([status, stderr]).toEqual([0, ""]);
    expect(atBoot.calls).toEqual(expected.map(([device = "", ...words]) => [device, "--initrd", ...words]));
    expect(atBoot.isDone).toBe(true);
  });

  test("a wrong word is said once, and the others are attached", async () => {
    using atBoot = new AtBoot(shell, "tsbuse=wrong,1 tsbuse=a,1");
    const { status, stderr } = await atBoot.run();
    expect(status).toBe(0);
    expect(stderr).toBe(
      `tsbuse: "tsbuse=wrong,1" on the kernel's command line failed:\ntsbuse: a wrong word\n`,
    );
    expect(atBoot.calls.map(([device]) => device)).toEqual(["wrong", "a"]);
  });

  test("what fails is tried again until it is given up", async () => {
    using atBoot = new AtBoot(shell, "tsbuse=late,1 tsbuse=a,1");
    const { stderr } = await atBoot.run();
    expect(stderr).toContain("tsbuse: no disk\n");
    expect(atBoot.calls.map(([device]) => device)).toEqual(["late", "a", "late"]);
    expect(atBoot.isDone).toBe(true);
  });

  test("once, for a caller that comes back", async () => {
    using atBoot = new AtBoot(shell, "tsbuse=late,1 tsbuse=a,1", 30);
    expect((await atBoot.run("once")).stderr).toBe("");
    expect(atBoot.isDone).toBe(false);
    writeFileSync(atBoot.directory.join("disk"), "");
    expect((await atBoot.run("once")).stderr).toBe("");
    expect(atBoot.isDone).toBe(true);
    expect((await atBoot.run("once")).stderr).toBe("");
    expect(atBoot.calls.map(([device]) => device)).toEqual(["late", "a", "late"]);
  });

  test("initramfs-tools asks for what must run before, and nothing is attached", async () => {
    using atBoot = new AtBoot(shell, "tsbuse=a,1");
    expect(await atBoot.run("prereqs")).toEqual({ status: 0, stdout: "", stderr: "" });
    expect(atBoot.calls).toEqual([]);
  });
});
