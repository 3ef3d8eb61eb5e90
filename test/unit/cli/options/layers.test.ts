/** `--layer`: an invalid one is an invalid command line, and help, man page and parser know the same layers. */
import { describe, expect, test } from "bun:test";
import { LAYER_TEXTS, type LayerStack, parseLayers } from "../../../../src/cli/options/layers.ts";
import { UsageError } from "../../../../src/cli/usage-error.ts";
import { LAYERS } from "../../../../src/layers/index.ts";
import { userError } from "../../../support/failure.ts";
import { Shadow } from "../../../support/shadow.ts";
import { NO_NODE, tsbuse } from "../tsbuse.ts";

const parse = (...values: readonly string[]): LayerStack => parseLayers(values, { report: () => undefined });

// The option's value, the cause and the remedy.
test.each([
  ["cw", 'unknown layer "cw"', 'did you mean "cow"?'],
  ["", 'unknown layer ""', "give cow, delay, error, log, readonly, record or stats"],
  ["xyzzy:a=b", 'unknown layer "xyzzy"', "give cow, delay, error, log, readonly, record or stats"],
  ["cow:fil=x", 'layer cow has no option "fil"', 'did you mean "file"?'],
  ["cow:size=1", 'layer cow has no option "size"', "it has file"],
  ["cow:file", "layer cow: file needs a value", "give file=FILE"],
  ["cow:file=", "layer cow: file needs a value", "give file=FILE"],
  ["cow:", "layer cow: an option is missing", "it has file"],
  ["stats:file=x", "layer stats has no options", 'leave out ":"'],
  ["delay:all=1,all=2", "layer delay: all is given twice", "give it once"],
  ["delay:all=-1", "layer delay: all=-1 is invalid", "give a whole number from 0 to 3600000"],
  ["delay:all=1.5", "layer delay: all=1.5 is invalid", "give a whole number"],
  ["error:rate=1.1", "layer error: rate=1.1 is invalid", "give a number from 0 to 1"],
  ["error:rate=101%", "layer error: rate=101% is invalid", "or from 0% to 100%"],
  ["error:rate=-1", "layer error: rate=-1 is invalid", "give a number from 0 to 1"],
  ["error:errno=ENOSPACE", "layer error: errno=ENOSPACE is invalid", 'did you mean "ENOSPC"?'],
  ["error:errno=5", "layer error: errno=5 is invalid", "give the name of an error"],
  ["error:command=wirte", "layer error: command=wirte is invalid", "give read, write, flush, trim or zero"],
  ["error:seed=x", "layer error: seed=x is invalid", "give a whole number from 0 to 4294967295"],
])("%p", (given, cause, remedy) => {
  const message = userError(() => parse(given));
  expect(() => parse(given)).toThrow(UsageError);
  expect(message).toStartWith(cause);
  expect(message.slice(cause.length)).toContain(remedy);
  expect(message).not.toContain("\n");
});

test("a wrong layer is exit status 2, before anything else is looked at", () => {
  const { status, stdout, stderr } = tsbuse("ramdisk", "4M", NO_NODE, "--layer", "log", "--layer", "cw");
  expect({ status, stdout, stderr }).toEqual({
    status: 2,
    stdout: "",
    stderr: 'tsbuse: unknown layer "cw": did you mean "cow"?\n',
  });
});

describe("what is parsed", () => {
  test("nothing", () => {
    expect(parse()).toMatchObject({ layers: [], names: [], sparesDevice: false });
  });

  test("whether the device is spared", () => {
    expect(parse("log", "stats").sparesDevice).toBe(false);
    expect(parse("cow", "log").sparesDevice).toBe(true);
    expect(parse("readonly").sparesDevice).toBe(true);
  });

  test("options reach their layer", () => {
    const [layer] = parse("error:command=read,errno=ENODATA,rate=100%").layers;
    const device = layer?.(new Shadow(4096));
    expect(() => device?.read(new Uint8Array(512), 0)).toThrow("ENODATA");
    expect(device?.flush?.()).toBeUndefined();
  });

  test("a comma in the name of a file is part of it", () => {
    const [layer] = parse("log:file=/nonexistent/a,b").layers;
    expect(userError(() => layer?.(new Shadow(4096)))).toStartWith("/nonexistent/a,b cannot be opened");
  });

  test("a seed that nobody has chosen is told, once the layer is used", () => {
    const lines: string[] = [];
    const report = (line: string): number => lines.push(line);
    const [chosen] = parseLayers(["error:rate=0.5,seed=1"], { report }).layers;
    const [other] = parseLayers(["error:rate=0.5"], { report }).layers;
    expect(lines).toEqual([]);
    chosen?.(new Shadow(4096));
    other?.(new Shadow(4096));
    expect(lines).toEqual([expect.stringMatching(/^layer error: seed=\d+$/)]);
  });
});

describe("documentation", () => {
  const help = tsbuse("deadbeef", "--help").stdout;
  const man = tsbuse("man").stdout.replaceAll("\\-", "-");

  test.each(LAYERS)("$name is in the help and in the manual page with all of its options", (named) => {
    const text = LAYER_TEXTS.find(({ summary }) => summary === named.summary);
    expect(help).toContain(`\n  ${text?.usage}`);
    expect(help).toContain(named.summary);
    expect(man).toContain(`\n.B ${text?.usage}\n${named.summary}.\n`);
    for (const [key, option] of Object.entries(named.options)) {
      expect(man).toContain(`\n.B ${key}=${option.value}\n${option.description}\n`);
    }
  });
});
