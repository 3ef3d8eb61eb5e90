/** Goal: "tsbuse run" says in one line what is wrong with its arguments or the module, before a node is touched. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { writeFiles } from "../../../support/files.ts";
import { TemporaryDirectory } from "../../../support/temporary.ts";
import { NO_NODE, tsbuse } from "../tsbuse.ts";

let temporary: TemporaryDirectory;
let path: string;

beforeEach(() => {
  temporary = new TemporaryDirectory();
  path = writeFiles(temporary.path, {
    "disk.ts": "export default { size: 512, read() {} };",
  });
});

afterEach(() => temporary[Symbol.dispose]());

test("words after -- are the module's, whatever they look like", () => {
  const teller = "export default (options: object) => { throw new Error(JSON.stringify(options)); };";
  writeFiles(temporary.path, { "disk.ts": teller });
  const { status, stderr } = tsbuse("run", path, NO_NODE, "--", "n=1024", "--read-olny=1", "a=b=c", "d=");
  expect(stderr).toContain('Error: {"n":"1024","--read-olny":"1","a":"b=c","d":""}');
  expect(status).toBe(1);
});

test.each([
  [["--", "size"], '"size" is no option for the module: give KEY=VALUE after --'],
  [["--", "=1"], '"=1" is no option for the module: give KEY=VALUE after --'],
  [["--", "a=1", "a=2"], "a is given twice after --: give it once"],
  [["a=1"], 'unexpected argument "a=1": tsbuse run takes MODULE TARGET'],
  [["--daemon", "--watch"], "--daemon and --watch exclude each other: leave out one"],
  [["--wach"], "unknown option --wach: did you mean --watch?"],
])("%p", (words, message) => {
  expect(tsbuse("run", path, NO_NODE, ...words)).toEqual({
    status: 2,
    stdout: "",
    stderr: `tsbuse: ${message}\n`,
  });
});

test("the words after -- are no arguments", () => {
  expect(tsbuse("run", path, "--", NO_NODE)).toEqual({
    status: 2,
    stdout: "",
    stderr: "tsbuse: an argument is missing: tsbuse run takes MODULE TARGET\n",
  });
});

test("only run takes words after --", () => {
  expect(tsbuse("ramdisk", "4M", NO_NODE, "--", "a=1").stderr).toContain('unexpected argument "a=1"');
});

test.each([
  ["missing.ts", "", /^tsbuse: .*missing\.ts does not exist: check the name of the module\n$/],
  ["broken.ts", "export default 3 3;", /^tsbuse: .*broken\.ts:1:18: Expected ";" but found "3"\n$/],
  ["thrower.ts", "throw new Error('boom');", /^tsbuse: .*thrower\.ts:1:11: the module threw Error: boom\n$/],
])("%s: one line, no stack", (name, text, message) => {
  if (text !== "") writeFiles(temporary.path, { [name]: text });
  const { status, stdout, stderr } = tsbuse("run", temporary.join(name), NO_NODE);
  expect(stderr).toMatch(message);
  expect({ status, stdout }).toEqual({ status: 1, stdout: "" });
});
