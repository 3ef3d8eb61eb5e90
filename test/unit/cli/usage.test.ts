/** Wrong command lines: exit status 2, nothing on stdout, one line on stderr with cause and remedy. */
import { expect, test } from "bun:test";
import { expectLine, NO_NODE, tsbuse } from "./tsbuse.ts";

const expectUsageError = (words: readonly string[], cause: string, remedy: string): void =>
  expectLine(tsbuse(...words), 2, cause, remedy);

const RAMDISK = ["ramdisk", "4M", NO_NODE] as const;
const BUCKET = ["bucket", "s3://disks/a", NO_NODE] as const;

// The words, the cause and the remedy.
test.each([
  [["ramdsk", "4M", NO_NODE], 'unknown command "ramdsk"', 'did you mean "ramdisk"?'],
  [["frobnicate"], 'unknown command "frobnicate"', 'see "tsbuse --help"'],
  [["help", "lop"], 'unknown command "lop"', 'did you mean "loop"?'],
  [["--frobnicate"], "unknown option --frobnicate", 'see "tsbuse --help"'],
  [[...RAMDISK, "--read-olny"], "unknown option --read-olny", "did you mean --read-only?"],
  [[...RAMDISK, "--readonly"], "unknown option --readonly", "did you mean --read-only?"],
  [[...RAMDISK, "--no-daemon"], "unknown option --no-daemon", "did you mean --daemon?"],
  [[...RAMDISK, "--xyzzy"], "unknown option --xyzzy", 'see "tsbuse ramdisk --help"'],
  [[...RAMDISK, "-x"], "unknown option -x", 'see "tsbuse ramdisk --help"'],
  [["list", "--force"], "unknown option --force", 'see "tsbuse list --help"'],
  [[...RAMDISK, "more"], 'unexpected argument "more"', "tsbuse ramdisk takes SIZE TARGET"],
  [["list", "more"], 'unexpected argument "more"', "tsbuse list takes no arguments"],
  [["deadbeef", "4K", NO_NODE, "more"], 'unexpected argument "more"', "tsbuse deadbeef takes [SIZE] TARGET"],
  [["ramdisk", "4M"], "an argument is missing", "tsbuse ramdisk takes SIZE TARGET"],
  [["deadbeef"], "an argument is missing", "tsbuse deadbeef takes [SIZE] TARGET"],
  [["completions"], "an argument is missing", "tsbuse completions takes SHELL"],
  [["completions", "tcsh"], '"tcsh" is not a shell', "give bash, zsh or fish"],
  [["disconnect", "auto"], '"auto" is for attaching', 'see "tsbuse list"'],
  [["disconnect", "ublk"], '"ublk" is for attaching', 'see "tsbuse list"'],
  [["disconnect", "nbd"], '"nbd" is for attaching', 'see "tsbuse list"'],
  [[...BUCKET, "--at", "1", "--create", "1G"], "a new disk has no past", "leave out --at"],
  [[...BUCKET, "--at", "1", "--keep", "1h"], "--keep is for the owner", "leave it out"],
  [["bucket-clone", "s3://disks/a", "s3://disks/b"], "which snapshot?", "give --at NAME"],
  [[...BUCKET, "--keep", "1y"], '--keep "1y" is not a time', "such as 24h"],
  [["recover", "/dev/ublkb0"], "an argument is missing", "tsbuse recover takes TARGET DEVICE"],
  [["recover", "/dev/ublkb0", "frobnicate"], 'unknown device "frobnicate"', 'see "tsbuse --help"'],
  [["recover", "/dev/ublkb0", "list"], '"list" is not a device', 'see "tsbuse --help"'],
  [["recover", "/dev/ublkb0", "ramdisk"], "an argument is missing", "tsbuse ramdisk takes SIZE TARGET"],
  [["recover", "/dev/ublkb0", "ramdisk", "1M", "--frob"], "unknown option --frob", "tsbuse ramdisk --help"],
])("%p", (words, cause, remedy) => expectUsageError(words, cause, remedy));

test.each([
  [["--block-size", "1000"], "--block-size 1000 is invalid", "give 512, 1024, 2048 or 4096"],
  [["--block-size=0"], "--block-size is 0", "give a size above zero"],
  [["--timeout", "x"], '--timeout "x" is not a whole number', "from 0 to 31622400"],
  [["--timeout", "31622401"], '--timeout "31622401" is not a whole number', "from 0 to 31622400"],
  [["--timeout", "5", "--timeout", "6"], "--timeout is given twice", "give it once"],
  [["--daemon", "--daemon"], "--daemon is given twice", "give it once"],
  [["-v", "--verbose"], "--verbose is given twice", "give it once"],
  [["--max-part", "256"], '--max-part "256" is not a whole number', "from 0 to 255"],
  [["--nbds-max", "0"], '--nbds-max "0" is not a whole number', "from 1 to 32768"],
  // All nodes and partitions share 2^20 numbers.
  [["--nbds-max", "8193", "--max-part", "100"], '--nbds-max "8193" is not', "from 1 to 8192"],
  [["--queues", "0"], '--queues "0" is not a whole number', "from 1 to 4096"],
  [["--busy-poll", "50001"], '--busy-poll "50001" is not a whole number', "from 0 to 50000"],
  [["--queue-depth", "4097"], '--queue-depth "4097" is not a whole number', "from 1 to 4096"],
  [["--timeout"], "--timeout needs a value", "give --timeout SECONDS"],
  [["--run="], "--run needs a value", "give --run COMMAND"],
  [["--pid-file", ""], "--pid-file needs a value", "give --pid-file FILE"],
  [["--read-only=yes"], "--read-only takes no value", 'leave out "=yes"'],
  [["--initrd", "--run", "true"], "--initrd and --run exclude each other", "leave out one"],
  [["--daemon", "--run", "true"], "--daemon and --run exclude each other", "leave out one"],
])("ramdisk with %p", (options, cause, remedy) => expectUsageError([...RAMDISK, ...options], cause, remedy));

test.each([
  [["ramdisk", "0", NO_NODE], "SIZE is 0", "give a size above zero"],
  [["ramdisk", "-5M", NO_NODE], "-5M is negative", "give a size above zero"],
  [["ramdisk", "12Q", NO_NODE], 'SIZE "12Q" is not a size', "such as 512M"],
  [["ramdisk", "2T", NO_NODE], "SIZE 2T is out of range", "give a size from 4K to 1T"],
  [["deadbeef", "1000", NO_NODE], "SIZE 1000 is not a whole number of blocks of 512 bytes", "give 1024"],
  [
    ["ramdisk", "5K", NO_NODE, "--block-size", "4096"],
    "SIZE 5K is not a whole number of blocks",
    "give 8192",
  ],
  [["loop", "x", NO_NODE, "--size", "1000"], "--size 1000 is not a whole number of blocks", "give 1024"],
  [["loop", "x", NO_NODE, "--create", "1"], "--create 1 is not a whole number of blocks", "give 512"],
  [["loop", "x", NO_NODE, "--offset", "-1"], "--offset -1 is negative", "give a size above zero"],
])("%p", (words, cause, remedy) => expectUsageError(words, cause, remedy));

test("no command: the help on stderr", () => {
  const { status, stdout, stderr } = tsbuse();
  expect(stderr).toContain("\nUsage: tsbuse COMMAND [options] [arguments]\n");
  expect(stdout).toBe("");
  expect(status).toBe(2);
});
