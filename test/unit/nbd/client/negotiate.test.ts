/** Goal: servers of every age are understood; anything else is one line with the cause and the remedy. */
import { afterEach, describe, expect, test } from "bun:test";
import { Deadbeef } from "../../../../devices/deadbeef.ts";
import { type Attachment, type BlockDevice, connectNbd, serve } from "../../../../src/index.ts";
import { concatenate } from "../../../support/golden.ts";
import { ERR, FIXED, NO_ZEROES, number, OPT, REP } from "../../../support/golden-handshake.ts";
import { TemporaryDirectory } from "../../../support/temporary.ts";

const MIB = 2 ** 20;
const MAGIC = new TextEncoder().encode("NBDMAGIC");
const HAVE_OPTION = new TextEncoder().encode("IHAVEOPT");
/** HAS_FLAGS and SEND_FLUSH; the same and READ_ONLY. */
const FLAGS = 0b101;
const READ_ONLY = 0b111;

/** A server's answer to an option; undefined if it hangs up. */
type Answers = Readonly<Record<number, readonly Uint8Array[] | undefined>>;

interface Script {
  readonly greeting?: Uint8Array;
  readonly answers?: Answers;
}

function reply(option: number, type: number, ...data: readonly Uint8Array[]): Uint8Array {
  const whole = concatenate(data);
  const magic = Uint8Array.of(0, 3, 0xe8, 0x89, 4, 0x55, 0x65, 0xa9);
  return concatenate([magic, number(option, 4), number(type, 4), number(whole.length, 4), whole]);
}

function big(value: number): Uint8Array {
  return concatenate([number(Math.floor(value / 2 ** 32), 4), number(value % 2 ** 32, 4)]);
}

const greet = (flags: number): Uint8Array => concatenate([MAGIC, HAVE_OPTION, number(flags, 2)]);
const sizeInfo = (size: number, flags = FLAGS): Uint8Array =>
  reply(OPT.GO, REP.INFO, number(0, 2), big(size), number(flags, 2));
const blockInfo = (least: number, most: number): Uint8Array =>
  reply(OPT.GO, REP.INFO, number(3, 2), number(least, 4), number(4096, 4), number(most, 4));
const unsupported = (option: number): Uint8Array[] => [reply(option, ERR.UNSUP)];
const refuse = (option: number, code: number, text = ""): Uint8Array[] => [
  reply(option, 2 ** 31 + code, new TextEncoder().encode(text)),
];
const acknowledge = (option: number): Uint8Array => reply(option, REP.ACK);

/** A server that knows only GO, or only EXPORT_NAME. */
const go = (...replies: readonly Uint8Array[]): Script => ({
  answers: { [OPT.STRUCTURED_REPLY]: unsupported(OPT.STRUCTURED_REPLY), [OPT.GO]: replies },
});
const exportName = (flags: number, ...answer: readonly Uint8Array[]): Script => ({
  greeting: greet(flags),
  answers: {
    [OPT.STRUCTURED_REPLY]: unsupported(OPT.STRUCTURED_REPLY),
    [OPT.GO]: unsupported(OPT.GO),
    [OPT.EXPORT_NAME]: answer.length === 0 ? undefined : answer,
  },
});

class ScriptedServer implements Disposable {
  readonly directory = new TemporaryDirectory();
  readonly uri = `nbd+unix:///disk?socket=${this.directory.join("s")}`;
  readonly #listener: { stop(closeConnections: boolean): void };

  /** @param clients later ones are accepted, but get no answer. */
  constructor({ greeting = greet(FIXED | NO_ZEROES), answers = {} }: Script, clients = Infinity) {
    let greeted = 0;
    let pending = Buffer.alloc(0);
    let hasFlags = false;
    this.#listener = Bun.listen({
      unix: this.directory.join("s"),
      socket: {
        open: (socket) => {
          greeted += 1;
          if (greeted <= clients) socket.write(greeting);
        },
        data: (socket, bytes) => {
          pending = Buffer.concat([pending, bytes]);
          if (!hasFlags) pending = pending.subarray(4);
          hasFlags = true;
          while (pending.length >= 16 && pending.length >= 16 + pending.readUInt32BE(12)) {
            const answer = answers[pending.readUInt32BE(8)];
            pending = pending.subarray(16 + pending.readUInt32BE(12));
            if (answer === undefined) {
              socket.end();
              return;
            }
            // In pieces of one byte, so that no message is complete.
            for (const byte of concatenate(answer)) socket.write(Uint8Array.of(byte));
          }
        },
      },
    });
  }

  [Symbol.dispose](): void {
    this.#listener.stop(true);
    this.directory[Symbol.dispose]();
  }
}

describe("an export", () => {
  test.each<[string, Script, Partial<BlockDevice>]>([
    ["of GO", go(sizeInfo(MIB), acknowledge(OPT.GO)), { size: MIB, blockSize: 512 }],
    [
      "with blocks",
      go(blockInfo(4096, MIB), sizeInfo(MIB), acknowledge(OPT.GO)),
      { size: MIB, blockSize: 4096 },
    ],
    ["that counts in bytes", go(sizeInfo(1000), blockInfo(1, MIB), acknowledge(OPT.GO)), { size: 512 }],
    ["that is large", go(sizeInfo(2 ** 42), acknowledge(OPT.GO)), { size: 2 ** 42 }],
    ["of EXPORT_NAME", exportName(FIXED | NO_ZEROES, big(MIB), number(FLAGS, 2)), { size: MIB }],
    ["and zeroes", exportName(FIXED, big(MIB), number(FLAGS, 2), new Uint8Array(124)), { size: MIB }],
    [
      "of newstyle that is not fixed",
      exportName(0, big(MIB), number(FLAGS, 2), new Uint8Array(124)),
      { size: MIB },
    ],
  ])("%s", async (_, script, shape) => {
    using server = new ScriptedServer(script);
    const device = await connectNbd(server.uri);
    expect(device).toMatchObject(shape);
    expect(device.flush).toBeDefined();
    expect(device.trim).toBeUndefined();
    expect(device.extents).toBeUndefined();
    await device.close?.();
  });

  test("that is read-only", async () => {
    using server = new ScriptedServer(go(sizeInfo(MIB, READ_ONLY), acknowledge(OPT.GO)));
    const device = await connectNbd(server.uri);
    expect(device.write ?? device.flush).toBeUndefined();
    await device.close?.();
  });

  test.each<[string, number, number, string]>([
    [
      "of which the last bytes are no block",
      1000,
      FLAGS,
      "the last 488 bytes of URI are no whole block, and are left out",
    ],
    ["that cannot be flushed", MIB, 1, "URI offers no flush: what it has answered must outlive it"],
  ])("%s is told of", async (_, size, flags, line) => {
    const lines: string[] = [];
    using server = new ScriptedServer(go(sizeInfo(size, flags), acknowledge(OPT.GO)));
    const device = await connectNbd(server.uri, { log: (each) => lines.push(each) });
    expect(lines).toHaveLength(1);
    expect(lines[0]).toStartWith(line.replace("URI", server.uri));
    await device.close?.();
  });
});

describe("one line", () => {
  const tls = "wants TLS, which is not supported: let the server do without";
  test.each<[string, Script, string]>([
    [
      "no NBD server",
      { greeting: new TextEncoder().encode("SSH-2.0-OpenSSH_9.2\r\n") },
      "is not an NBD server: check",
    ],
    [
      "the old protocol",
      { greeting: concatenate([MAGIC, Uint8Array.of(0, 0, 0x42, 2, 0x81, 0x86, 0x12, 0x53), number(0, 2)]) },
      "speaks the old protocol without options: update the server",
    ],
    ["TLS", { answers: { [OPT.STRUCTURED_REPLY]: refuse(OPT.STRUCTURED_REPLY, 5) } }, tls],
    ["TLS, at GO", go(...refuse(OPT.GO, 5)), tls],
    ["no such export", go(...refuse(OPT.GO, 6)), 'the server has no export "disk": "nbdinfo --list"'],
    [
      "no such export, at EXPORT_NAME",
      exportName(FIXED),
      'the server has no export "disk": "nbdinfo --list"',
    ],
    ["a policy", go(...refuse(OPT.GO, 2)), "is refused to this client: see the server's configuration"],
    [
      "what it says",
      go(...refuse(OPT.GO, 9, "not\ntoday")),
      "the server refuses the export: not today: check",
    ],
    ["its end", { answers: {} }, "the server closed the connection: check the address"],
    ["no size", go(acknowledge(OPT.GO)), "the server does not say how large the export is: check"],
    ["another's reply", go(sizeInfo(MIB), acknowledge(OPT.ABORT)), "does not keep to the protocol: check"],
    ["nothing in it", go(sizeInfo(0), acknowledge(OPT.GO)), "has 0 bytes: serve at least a block of 512"],
    [
      "large blocks",
      go(sizeInfo(MIB), blockInfo(65_536, MIB), acknowledge(OPT.GO)),
      "let the server take some of 4096",
    ],
    [
      "payloads that are no block",
      go(sizeInfo(MIB), blockInfo(4096, 512), acknowledge(OPT.GO)),
      "takes 512 bytes at once, and asks for blocks of 4096: mend the server",
    ],
  ])("for %s", async (_, script, line) => {
    using server = new ScriptedServer(script);
    const refusal = await connectNbd(server.uri).then(
      () => "none",
      (error: Error) => `${error.name}: ${error.message}`,
    );
    expect(refusal).toStartWith("UserError: ");
    expect(refusal).toContain(line);
    expect(refusal).toContain(server.uri);
    expect(refusal).not.toContain("\n");
  });

  test.each([
    ["nbds://store/disk", "asks for TLS, which is not supported"],
    ["nbds+unix:///?socket=/run/s", "asks for TLS, which is not supported"],
    ["http://store/disk", "is not an NBD URI: give nbd://HOST:PORT/NAME"],
    ["nbd://store:99999/disk", "is not an NBD URI: give nbd://HOST:PORT/NAME"],
    ["nbd+unix:///disk", "names no socket"],
    ["nbd+unix:///?socket=/nowhere/a+b%2Bc", "?socket=/nowhere/a%2Bb%2Bc: there is no such socket"],
    [
      "nbd://127.0.0.1:1/",
      "cannot connect to nbd://127.0.0.1:1/: no server listens there: check the address",
    ],
    ["unix:/nowhere/s", "cannot connect to nbd+unix:///?socket=/nowhere/s: there is no such socket: check"],
    ["nbd://no.such.host.invalid/", "no such host is known: check the address"],
  ])("for %s", async (uri, line) => {
    await expect(connectNbd(uri)).rejects.toThrow(line);
  });
});

describe("several connections", () => {
  test("that are kept waiting are done without", async () => {
    /** HAS_FLAGS and CAN_MULTI_CONN. */
    const several = 1 | (1 << 8);
    using server = new ScriptedServer(go(sizeInfo(MIB, several), acknowledge(OPT.GO)), 1);
    const device = await connectNbd(server.uri);
    expect(device.size).toBe(MIB);
    await device.close?.();
  }, 30_000);

  let server: Attachment | undefined;
  afterEach(() => server?.close());

  test("are made where the server allows them", async () => {
    using directory = new TemporaryDirectory();
    server = await serve(new Deadbeef(MIB), `unix:${directory.join("s")}`, { maxConnections: 3 });
    const device = await connectNbd(server.path, { connections: 8 });
    const target = new Uint8Array(512);
    await device.read(target, 512);
    expect(Buffer.from(target.subarray(0, 4)).toString("hex")).toBe("deadbeef");
    await device.close?.();
  });
});
