/** Failures before a node is touched: exit status 1, one line on stderr with cause and remedy. */
import { afterAll, expect, test } from "bun:test";
import { existsSync, mkdirSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { TemporaryDirectory } from "../../support/temporary.ts";
import { commandOf, type Ended, execute, expectLine, NO_NODE, tsbuse } from "./tsbuse.ts";

const temporary = new TemporaryDirectory();
const directory = temporary.path;
afterAll(() => temporary[Symbol.dispose]());

const expectFailure = (ended: Ended, cause: string, remedy: string): void =>
  expectLine(ended, 1, cause, remedy);

const inDirectory = (name: string): string => join(directory, name);

writeFileSync(inDirectory("odd.img"), "");
truncateSync(inDirectory("odd.img"), 1000);
writeFileSync(inDirectory("there.img"), "");
truncateSync(inDirectory("there.img"), 8192);

test.each([
  [["absent.img"], "absent.img does not exist", "--create SIZE"],
  [["there.img", "--offset", "8192"], "offset 8192 is beyond the end", "it has 8192 bytes"],
  [["there.img", "--size", "16K"], "size 16384 is beyond the end", "8192 bytes"],
  [["there.img", "--create", "1M"], "there.img exists already", "leave out --create"],
  [["odd.img"], "size 1000 is not a whole number of blocks of 512 bytes", "give 512"],
])("loop %p", ([name = "", ...options], cause, remedy) => {
  expectFailure(tsbuse("loop", inDirectory(name), NO_NODE, ...options), cause, remedy);
});

test.each([
  [
    "nbds://store/disk",
    "asks for TLS, which is not supported",
    'give nbd:// through a tunnel, such as "ssh -L" makes',
  ],
  ["disk.img", "disk.img is not an NBD URI", "give nbd://HOST:PORT/NAME or nbd+unix:///NAME?socket=PATH"],
  ["unix:/nowhere/s", "there is no such socket", "check the address, and that the server runs"],
  ["nbd://127.0.0.1:1/disk", "no server listens there", "check the address, and that the server runs"],
])("nbd %p", (uri, cause, remedy) => {
  expectFailure(tsbuse("nbd", uri, NO_NODE), cause, remedy);
});

test.each([
  [["loop", inDirectory("there.img")], "--handover is for data in memory", "leave it out, or give --recover"],
  [
    ["ramdisk", "4M", "--layer", `cow:file=${inDirectory("changes")}`],
    "an overlay file is handed over when its server has ended",
    "leave out cow:file, or leave out --handover",
  ],
])("%p --handover", ([command = "", first = "", ...options], cause, remedy) => {
  expectFailure(tsbuse(command, first, NO_NODE, ...options, "--handover"), cause, remedy);
});

test.each([[["ramdisk", "4M"]], [["loop", inDirectory("there.img"), "--layer", "cow"]]])(
  "%p --handover where files must be smaller",
  (words) => {
    const command = commandOf(...words, NO_NODE, "--handover");
    const ended = execute(["/bin/sh", "-c", 'ulimit -f 4; exec "$0" "$@"', ...command]);
    expectFailure(ended, "the limit on the size of files is below", 'see "ulimit -f"');
  },
);

writeFileSync(inDirectory("module.ts"), "export default { size: 4096, read() {}, write() {} };");

test.each([
  [["ramdisk", "4M"], "what it holds is memory itself", 'give "loop FILE --direct"'],
  [
    ["run", inDirectory("module.ts")],
    "its methods take memory while they answer",
    'give "loop FILE --direct"',
  ],
  [["loop", inDirectory("there.img")], `${inDirectory("there.img")} is a file`, "give a disk or a partition"],
  [["ramdisk", "4M", "--layer", "cow"], "a layer takes memory for what it does", "leave out --layer"],
  [["ramdisk", "4M", "--verbose"], "each line of the log takes memory", "leave out --verbose"],
  [["ramdisk", "4M", "--read-only"], "it is read-only", "leave out --read-only"],
])("%p --swap", ([command = "", first = "", ...options], cause, remedy) => {
  const ended = tsbuse(command, first, NO_NODE, ...options, "--swap");
  expectFailure(ended, `${NO_NODE} cannot hold swap: ${cause}`, remedy);
});

test("a file that loop has made is gone when the attaching fails", () => {
  const ended = tsbuse("loop", inDirectory("unused.img"), "/dev/sda", "--create", "1M");
  expectFailure(ended, "/dev/sda is not an NBD node", "/dev/nbd0");
  expect(existsSync(inDirectory("unused.img"))).toBe(false);
});

test.each([
  ["/dev/sda", "/dev/sda is not an NBD node", "give /dev/nbd0"],
  ["/dev/nbd3p1", "/dev/nbd3p1 is a partition", "give the whole device, /dev/nbd3"],
  ["/dev/ublkc0", "/dev/ublkc0 is not a ublk device", "give /dev/ublkb0"],
  ["/dev/ublkb3p1", "/dev/ublkb3p1 is a partition", "give the whole device, /dev/ublkb3"],
])("the target %p", (target, cause, remedy) => {
  expectFailure(tsbuse("ramdisk", "4M", target), cause, remedy);
  expectFailure(tsbuse("disconnect", target), cause, remedy);
});

test("disconnect of what is not attached", () => {
  expectFailure(tsbuse("disconnect", NO_NODE), `${NO_NODE} is not attached`, '"tsbuse list"');
  expectFailure(tsbuse("disconnect", NO_NODE, "--force"), `${NO_NODE} is not attached`, '"tsbuse list"');
});

test.each([
  [["--recover"], "recovery needs a node"],
  [["--resume"], "resuming needs a node"],
  [["--handover"], "a handover needs a node"],
  [["--queues", "2"], "more than one queue needs a node"],
])("%p, which only a node has, on a socket", (options, cause) => {
  expectFailure(tsbuse("ramdisk", "4M", "unix:/tmp/never.sock", ...options), cause, "give /dev/ublkb0");
});

test("a RAM disk of more than there is memory, all of it at once", () => {
  const ended = tsbuse("ramdisk", "1T", "unix:/tmp/never.sock", "--populate");
  expectFailure(ended, "--populate of 1T needs more than the", "give a smaller size");
});

test("a pipe for the lines of a layer that nobody reads", () => {
  Bun.spawnSync(["mkfifo", inDirectory("pipe")]);
  const layer = `log:file=${inDirectory("pipe")}`;
  const ended = tsbuse("ramdisk", "4M", "unix:/tmp/never.sock", "--layer", layer);
  expectFailure(ended, "pipe cannot be opened: it is a pipe that nobody reads", "start its reader first");
});

test("a PID file that cannot be", () => {
  mkdirSync(inDirectory("pid.new"));
  const words = ["loop", inDirectory("never.img"), `unix:${inDirectory("s")}`, "--create", "1M"];
  const late = tsbuse(...words, "--pid-file", inDirectory("pid"));
  expectFailure(late, "pid cannot be written", "choose another name");
  expect(existsSync(inDirectory("never.img"))).toBe(false);
  const missing = tsbuse("ramdisk", "4M", NO_NODE, "--pid-file", inDirectory("no/such/pid"));
  expectFailure(missing, "cannot be written", "its directory is missing or not writable");
  const special = tsbuse("ramdisk", "4M", NO_NODE, "--pid-file", directory);
  expectFailure(special, "exists and is not a regular file", "choose another name");
});

// Root gives up its capabilities first.
const setpriv = process.getuid?.() === 0 ? ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] : [];
test.skipIf(setpriv.length > 0 && Bun.which("setpriv") === null)(
  "attaching without privileges (needs setpriv when run by root)",
  () => {
    const ended = execute([...setpriv, ...commandOf("ramdisk", "4M", NO_NODE)]);
    expectFailure(ended, `attaching ${NO_NODE} needs root`, "run it with sudo");
  },
);

test("a result that nobody takes", () => {
  const command = commandOf("--version")
    .map((word) => `'${word}'`)
    .join(" ");
  const ended = execute(["/bin/sh", "-c", `${command} >/dev/full`]);
  expectFailure(ended, "the standard output is closed or full", "nobody took the whole result");
});
