/** The handshake: its bytes, its limits, and the answers to malformed options. */
import { describe, expect, test } from "bun:test";
import { Dispatch } from "../../../../src/dispatch.ts";
import { exportInfo, type ExportOptions } from "../../../../src/nbd/server/export.ts";
import {
  Handshake,
  OPTION_BYTES_MAX,
  OPTION_BYTES_SKIPPED_MAX,
  OPTIONS_MAX,
} from "../../../../src/nbd/server/handshake.ts";
import { Ramdisk } from "../../../../devices/ramdisk.ts";
import { concatenate, hex } from "../../../support/golden.ts";
import {
  clientFlags,
  contextData,
  ERR,
  FIXED,
  goData,
  NO_ZEROES,
  number,
  OPT,
  option,
  optionOfLength,
  optionReplies,
  REP,
  text,
} from "../../../support/golden-handshake.ts";
import { Shadow } from "../../../support/shadow.ts";

const SIZE = 64 * 1024;
const decoder = new TextDecoder();

function handshake(options: ExportOptions = {}, device = new Shadow(SIZE)): Handshake {
  return new Handshake(exportInfo(new Dispatch(device), options));
}

/** A handshake past the client's flags. */
function begun(options: ExportOptions = {}): Handshake {
  const begins = handshake(options);
  begins.push(clientFlags(FIXED | NO_ZEROES));
  return begins;
}

/** One whose device tells its holes, with structured replies. */
function withContexts(): Handshake {
  const device = new Ramdisk(SIZE);
  const begins = new Handshake(exportInfo(new Dispatch(device), {}));
  device.close();
  begins.push(concatenate([clientFlags(FIXED | NO_ZEROES), option(OPT.STRUCTURED_REPLY)]));
  return begins;
}

function unknownOption(length: number): Uint8Array {
  return option(99, new Uint8Array(length));
}

/** The types of the replies to some bytes. */
function types(shake: Handshake, ...bytes: readonly Uint8Array[]): number[] {
  return optionReplies(shake.push(concatenate(bytes)).reply).map((reply) => reply.type);
}

describe("golden bytes", () => {
  test("the greeting", () => {
    expect(handshake().greeting()).toEqual(hex("4e42444d41474943 49484156454f5054 0003"));
  });

  test("GO: export, block size, acknowledgement; then transmission", () => {
    const step = begun().push(hex("49484156454f5054 00000007 00000006 00000000 0000"));
    expect(step.reply).toEqual(
      hex(`0003e889045565a9 00000007 00000003 0000000c 0000 0000000000010000 016d
           0003e889045565a9 00000007 00000003 0000000e 0003 00000200 00001000 02000000
           0003e889045565a9 00000007 00000001 00000000`),
    );
    expect(step.verdict).toEqual({ kind: "transmission", structured: false, allocation: false });
  });

  test("EXPORT_NAME: size and flags, and 124 zeroes unless the client does without", () => {
    const name = option(OPT.EXPORT_NAME);
    const short = hex("0000000000010000 016d");
    expect(begun().push(name).reply).toEqual(short);
    const old = handshake();
    const step = old.push(concatenate([clientFlags(0), name]));
    expect(step.reply).toEqual(concatenate([short, new Uint8Array(124)]));
    expect(step.verdict?.kind).toBe("transmission");
  });

  test("LIST: the name and the description", () => {
    const step = begun({ exportName: "né", description: "text" }).push(option(OPT.LIST));
    expect(step.reply).toEqual(
      hex(`0003e889045565a9 00000003 00000002 0000000b 00000003 6ec3a9 74657874
           0003e889045565a9 00000003 00000001 00000000`),
    );
  });
});

describe("options", () => {
  test("byte by byte, the replies are the same as at once", () => {
    const bytes = concatenate([
      clientFlags(FIXED),
      option(OPT.STRUCTURED_REPLY),
      option(99, new Uint8Array(50)),
      option(OPT.LIST),
      option(OPT.INFO, goData("", 1, 2)),
      option(OPT.GO, goData("")),
      hex("25609513"),
    ]);
    const whole = handshake({ description: "d" }).push(bytes);
    const slow = handshake({ description: "d" });
    const replies: Uint8Array[] = [];
    let used = 0;
    for (const byte of bytes) {
      used += 1;
      const step = slow.push(Uint8Array.of(byte));
      replies.push(step.reply);
      if (step.verdict !== undefined) {
        expect(step.verdict).toEqual({ kind: "transmission", structured: true, allocation: false });
        break;
      }
    }
    expect(whole.verdict?.kind).toBe("transmission");
    expect(concatenate(replies)).toEqual(whole.reply);
    expect(whole.rest).toEqual(hex("25609513"));
    expect(used).toBe(bytes.length - 4);
  });

  test("INFO with name and description, and the connection stays in the handshake", () => {
    const shake = begun({ exportName: "disk", description: "of mine" });
    const step = shake.push(option(OPT.INFO, goData("", 1, 2, 3, 77)));
    const replies = optionReplies(step.reply);
    expect(replies.map((reply) => reply.type)).toEqual([3, 3, 3, 3, 1]);
    expect(replies.map((reply) => reply.data[1])).toEqual([0, 3, 1, 2, undefined]);
    expect(decoder.decode(replies[2]?.data.slice(2))).toBe("disk");
    expect(decoder.decode(replies[3]?.data.slice(2))).toBe("of mine");
    expect(step.verdict).toBeUndefined();
    expect(types(shake, option(OPT.ABORT))).toEqual([REP.ACK]);
  });

  test("structured replies bring DF with them", () => {
    const shake = begun();
    expect(types(shake, option(OPT.STRUCTURED_REPLY))).toEqual([REP.ACK]);
    const step = shake.push(option(OPT.GO, goData("")));
    expect(optionReplies(step.reply)[0]?.data.slice(10)).toEqual(hex("01ed"));
    expect(step.verdict).toEqual({ kind: "transmission", structured: true, allocation: false });
  });

  test.each([
    ["STARTTLS", OPT.STARTTLS],
    ["EXTENDED_HEADERS", OPT.EXTENDED_HEADERS],
    ["PEEK_EXPORT", 4],
    ["0", 0],
    ["12", 12],
    ["the largest", 0xffff_ffff],
  ])("option %s is not supported, and its data is skipped", (_, number_) => {
    const shake = begun();
    expect(types(shake, option(number_, new Uint8Array(1000)), option(OPT.LIST))).toEqual([ERR.UNSUP, 2, 1]);
  });

  test("ABORT is acknowledged, and the end", () => {
    const step = begun().push(option(OPT.ABORT));
    expect(optionReplies(step.reply).map((reply) => reply.type)).toEqual([REP.ACK]);
    expect(step.verdict).toEqual({ kind: "abort" });
  });

  test("the export has its name and the empty one, and no other", () => {
    for (const [name, expected] of [
      ["disk", [3, 3, 1]],
      ["", [3, 3, 1]],
      ["disk2", [ERR.UNKNOWN]],
      ["DISK", [ERR.UNKNOWN]],
    ] as const) {
      const step = begun({ exportName: "disk" }).push(option(OPT.GO, goData(name)));
      expect(optionReplies(step.reply).map((reply) => reply.type)).toEqual([...expected]);
      expect(step.verdict === undefined).toBe(expected.length === 1);
    }
    const step = begun({ exportName: "disk" }).push(
      option(OPT.EXPORT_NAME, new TextEncoder().encode("other")),
    );
    expect(step.verdict?.kind).toBe("drop");
  });
});

/** Whether the transmission that GO begins has the chosen context. */
function goneWithContexts(shake: Handshake): boolean {
  const { verdict } = shake.push(option(OPT.GO, goData("")));
  expect(verdict).toMatchObject({ kind: "transmission", structured: true });
  return verdict?.kind === "transmission" && verdict.allocation;
}

describe("metadata contexts", () => {
  const allocation = "base:allocation";

  test("SET chooses base:allocation for the export that GO then asks for", () => {
    const shake = withContexts();
    const set = optionReplies(
      shake.push(option(OPT.SET_META_CONTEXT, contextData("", allocation, "x:y"))).reply,
    );
    expect(set.map((reply) => reply.type)).toEqual([REP.META_CONTEXT, REP.ACK]);
    expect(set[0]?.data).toEqual(concatenate([number(1, 4), new TextEncoder().encode(allocation)]));
    expect(goneWithContexts(shake)).toBe(true);
  });

  test.each([
    ["SET of nothing", OPT.SET_META_CONTEXT, [], [REP.ACK]],
    ["SET of another", OPT.SET_META_CONTEXT, ["qemu:dirty-bitmap:x"], [REP.ACK]],
    ["SET of a name space", OPT.SET_META_CONTEXT, ["base:"], [REP.ACK]],
    ["LIST of all", OPT.LIST_META_CONTEXT, [], [REP.META_CONTEXT, REP.ACK]],
    ["LIST of the name space", OPT.LIST_META_CONTEXT, ["base:"], [REP.META_CONTEXT, REP.ACK]],
    ["LIST of one", OPT.LIST_META_CONTEXT, ["z:", allocation], [REP.META_CONTEXT, REP.ACK]],
    ["LIST of another", OPT.LIST_META_CONTEXT, ["qemu:"], [REP.ACK]],
  ])("%s", (_, type, queries, expected) => {
    const shake = withContexts();
    expect(types(shake, option(type, contextData("", ...queries)))).toEqual(expected);
    expect(goneWithContexts(shake)).toBe(false);
  });

  test("a later SET takes back an earlier one, even when it fails", () => {
    const shake = withContexts();
    shake.push(option(OPT.SET_META_CONTEXT, contextData("", allocation)));
    expect(types(shake, option(OPT.SET_META_CONTEXT, contextData("none", allocation)))).toEqual([
      ERR.UNKNOWN,
    ]);
    expect(goneWithContexts(shake)).toBe(false);
  });

  test("without structured replies there are none", () => {
    expect(types(begun(), option(OPT.SET_META_CONTEXT, contextData("", allocation)))).toEqual([ERR.INVALID]);
  });
});

describe("malformed", () => {
  test.each([
    ["LIST with data", OPT.LIST, new Uint8Array(1)],
    ["STRUCTURED_REPLY with data", OPT.STRUCTURED_REPLY, new Uint8Array(4)],
    ["GO without data", OPT.GO, new Uint8Array()],
    ["GO with half a length", OPT.GO, new Uint8Array(3)],
    ["GO without a count", OPT.GO, text("")],
    ["GO whose name is longer than the option", OPT.GO, concatenate([number(9, 4), new Uint8Array(4)])],
    ["GO whose name has 2^32 - 1 bytes", OPT.GO, concatenate([number(0xffff_ffff, 4), new Uint8Array(99)])],
    ["GO that counts too many", OPT.GO, concatenate([text(""), number(2, 2), number(1, 2)])],
    ["GO with a byte too many", OPT.GO, concatenate([goData("", 1), new Uint8Array(1)])],
    ["GO with a name of 4097 bytes", OPT.GO, goData("x".repeat(4097))],
    ["INFO without a count", OPT.INFO, text("name")],
  ])("%s: invalid, and the next option is answered", (_, type, data) => {
    expect(types(begun(), option(type, data), option(OPT.LIST))).toEqual([ERR.INVALID, 2, 1]);
  });

  test.each([
    ["without a count", text("")],
    ["that counts too many", concatenate([text(""), number(0xffff_ffff, 4), text("base:allocation")])],
    ["with a query of 4097 bytes", contextData("", "x".repeat(4097))],
    ["with a byte too many", concatenate([contextData("", "a:b"), new Uint8Array(1)])],
  ])("a metadata context %s", (_, data) => {
    const shake = withContexts();
    expect(types(shake, option(OPT.SET_META_CONTEXT, data), option(OPT.LIST))).toEqual([ERR.INVALID, 2, 1]);
  });

  test("a name that is not UTF-8 names nothing", () => {
    const name = Uint8Array.of(0, 0, 0, 1, 0xff, 0, 0);
    const shake = begun({ exportName: "\u{fffd}" });
    expect(types(shake, option(OPT.INFO, name))).toEqual([ERR.INVALID]);
    expect(shake.push(option(OPT.EXPORT_NAME, Uint8Array.of(0xff))).verdict?.kind).toBe("drop");
  });

  test.each([
    ["flags that no client has", clientFlags(4)],
    ["an option without fixed newstyle", concatenate([clientFlags(0), option(OPT.LIST)])],
    ["a wrong magic number", concatenate([clientFlags(FIXED), new Uint8Array(16)])],
    ["HTTP", new TextEncoder().encode("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")],
    ["the other handshake", hex("00000001 25609513 00000000 0000000000000001")],
    ["a long name", concatenate([clientFlags(FIXED), optionOfLength(1, 20_000, new Uint8Array())])],
  ])("%s: the client is dropped", (_, bytes) => {
    const step = handshake().push(bytes);
    expect(step.verdict?.kind).toBe("drop");
    expect(step.reply).toHaveLength(0);
  });
});

describe("limits", () => {
  test("an option of the longest length is looked at, one byte more is too big", () => {
    expect(types(begun(), unknownOption(OPTION_BYTES_MAX))).toEqual([ERR.UNSUP]);
    const shake = begun();
    expect(types(shake, unknownOption(OPTION_BYTES_MAX + 1), option(OPT.LIST))).toEqual([ERR.TOO_BIG, 2, 1]);
    expect(types(shake, unknownOption(OPTION_BYTES_SKIPPED_MAX), option(OPT.LIST))).toEqual([
      ERR.TOO_BIG,
      2,
      1,
    ]);
  });

  test("a giant option is dropped when its header is there", () => {
    for (const length of [OPTION_BYTES_SKIPPED_MAX + 1, 0xffff_ffff]) {
      const step = begun().push(optionOfLength(OPT.GO, length, new Uint8Array()));
      expect(step.verdict).toEqual({ kind: "drop", reason: `it sent an option of ${length} bytes` });
    }
  });

  test("names of 4096 bytes are fine", () => {
    const exportName = "n".repeat(4096);
    const shake = begun({ exportName, description: "d".repeat(4096) });
    expect(types(shake, option(OPT.GO, goData(exportName, 1, 2)))).toEqual([3, 3, 3, 3, 1]);
  });

  test("options are counted", () => {
    const shake = begun();
    const all = Array.from({ length: OPTIONS_MAX }, () => option(99));
    expect(types(shake, ...all)).toHaveLength(OPTIONS_MAX);
    const { verdict } = shake.push(option(OPT.GO, goData("")));
    expect(verdict).toEqual({ kind: "drop", reason: `it sent more than ${OPTIONS_MAX} options` });
  });
});
