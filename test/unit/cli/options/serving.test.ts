/** The options of every device command: how their values are parsed, and which options exclude each other. */
import { expect, test } from "bun:test";
import { byName, reader } from "../../../../src/cli/options/argument.ts";
import { blocks, SERVING, servingOptions } from "../../../../src/cli/options/serving.ts";
import type { ServeDeviceOptions } from "../../../../src/target/serve-device.ts";
import { userError } from "../../../support/failure.ts";

const given = (found: Readonly<Record<string, unknown>>) => reader(byName(SERVING), found);

test("what is not given", () => {
  const { stack, ...options } = servingOptions(given({}));
  expect(options).toEqual({
    readOnly: false,
    blockSize: undefined,
    timeoutSeconds: undefined,
    requestTimeoutMs: undefined,
    stopTimeoutMs: undefined,
    attach: undefined,
    queues: undefined,
    queueDepth: undefined,
    swap: false,
    recover: false,
    handover: false,
    resume: false,
    busyPollMs: undefined,
    exportName: undefined,
    description: undefined,
    metrics: undefined,
    maxPart: undefined,
    nbdsMax: undefined,
    takeOver: false,
    run: undefined,
    daemon: false,
    initrd: false,
    pidFile: undefined,
    verbose: false,
  });
  expect(stack.layers).toEqual([]);
});

// The words typed, the parsed value, and what serveDevice gets.
test.each([
  ["read-only", true, { readOnly: true }],
  ["block-size", "4K", { blockSize: 4096 }],
  ["timeout", "30", { timeoutSeconds: 30 }],
  ["request-timeout", "9", { requestTimeoutMs: 9000 }],
  ["request-timeout", "0", { requestTimeoutMs: undefined }],
  ["stop-timeout", "20", { stopTimeoutMs: 20_000 }],
  ["stop-timeout", "0", { stopTimeoutMs: undefined }],
  ["queues", "4", { queues: 4 }],
  ["queue-depth", "16", { queueDepth: 16 }],
  ["recover", true, { recover: true }],
  ["resume", true, { resume: true }],
  ["busy-poll", "50", { busyPollMs: 0.05 }],
  ["busy-poll", "0", { busyPollMs: 0 }],
  ["export-name", "disk", { exportName: "disk" }],
  ["description", "a disk", { description: "a disk" }],
  ["max-part", "15", { maxPart: 15 }],
  ["nbds-max", "64", { nbdsMax: 64 }],
] as const satisfies readonly (readonly [string, string | true, Partial<ServeDeviceOptions>])[])(
  "--%s %j",
  (name, value, expected) => expect(servingOptions(given({ [name]: value }))).toMatchObject(expected),
);

test("--initrd is a daemon's", () => {
  expect(servingOptions(given({ initrd: true })).daemon).toBe(true);
});

test("each --layer is one more, the first nearest to the transport", () => {
  const { stack } = servingOptions(given({ layer: "stats\0readonly" }));
  expect(stack.layers).toHaveLength(2);
  expect(stack.sparesDevice).toBe(true);
});

test("an option knows another one, in whichever order they are given", () => {
  expect(servingOptions(given({ "nbds-max": "32768" })).nbdsMax).toBe(32_768);
  expect(servingOptions(given({ "nbds-max": "262144", "max-part": "3" })).nbdsMax).toBe(262_144);
  const tooMany = given({ "nbds-max": "262145", "max-part": "3" });
  expect(userError(() => servingOptions(tooMany))).toContain("from 1 to 262144");
  expect(blocks("512", "--size", given({}))).toBe(512);
  expect(userError(() => blocks("512", "--size", given({ "block-size": "4096" })))).toContain("give 4096");
});
