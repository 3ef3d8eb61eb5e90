/** Goal: whatever a server does to a request, the next correct server gets it, and no caller gets a wrong answer. */
import { describe, expect, test } from "bun:test";
import { connectNbd } from "../../../../src/index.ts";
import { concatenate } from "../../../support/golden.ts";
import { NO_ZEROES, number } from "../../../support/golden-handshake.ts";
import { TemporaryDirectory } from "../../../support/temporary.ts";

const SIZE = 512 * 1024;
const [READ, WRITE] = [0, 1];
const ESHUTDOWN = 108;
const HEADER_BYTES = 28;
const GREETING = concatenate([new TextEncoder().encode("NBDMAGICIHAVEOPT"), number(NO_ZEROES, 2)]);
/** A size, and HAS_FLAGS with SEND_FLUSH. */
const EXPORT = concatenate([number(0, 4), number(SIZE, 4), number(0b101, 2)]);

/** A received request, without the payload of a write. */
interface Asked {
  readonly command: number;
  readonly cookie: Uint8Array;
  /** Carries out the request and returns an honest server's answer. */
  readonly perform: () => Uint8Array;
}

/** The answers of the first connection; "end" closes it. */
type Misbehave = (asked: Asked, before: readonly Asked[]) => readonly (Uint8Array | "end")[];

const reply = (cookie: Uint8Array, error = 0): Uint8Array =>
  concatenate([Uint8Array.of(0x67, 0x44, 0x66, 0x98), number(error, 4), cookie]);

class HostileServer implements Disposable {
  readonly directory = new TemporaryDirectory();
  readonly uri = `unix:${this.directory.join("s")}`;
  readonly memory = new Uint8Array(SIZE);
  readonly #listener: { stop(closeConnections: boolean): void };
  #connections = 0;

  constructor(misbehave: Misbehave) {
    this.#listener = Bun.listen<Dialogue>({
      unix: this.directory.join("s"),
      socket: {
        open: (socket) => {
          this.#connections += 1;
          socket.data = new Dialogue(this.memory, this.#connections === 1 ? misbehave : undefined);
          socket.write(GREETING);
        },
        data: (socket, bytes) => {
          for (const part of socket.data.take(bytes)) {
            if (part === "end") return void socket.end();
            socket.write(part);
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

/** One connection: EXPORT_NAME, then requests. */
class Dialogue {
  readonly #memory: Uint8Array;
  readonly #misbehave: Misbehave | undefined;
  readonly #before: Asked[] = [];
  #pending = Buffer.alloc(0);
  #isNegotiated = false;

  constructor(memory: Uint8Array, misbehave: Misbehave | undefined) {
    this.#memory = memory;
    this.#misbehave = misbehave;
  }

  take(bytes: Uint8Array): (Uint8Array | "end")[] {
    this.#pending = Buffer.concat([this.#pending, bytes]);
    if (!this.#isNegotiated) {
      // Flags, and an option whose name is empty.
      if (this.#pending.length < 20) return [];
      this.#isNegotiated = true;
      this.#pending = this.#pending.subarray(20);
      return [EXPORT];
    }
    const answers: (Uint8Array | "end")[] = [];
    for (let asked = this.#next(); asked !== undefined; asked = this.#next()) {
      answers.push(...(this.#misbehave?.(asked, this.#before) ?? [asked.perform()]));
      this.#before.push(asked);
    }
    return answers;
  }

  #next(): Asked | undefined {
    if (this.#pending.length < HEADER_BYTES) return undefined;
    const command = this.#pending.readUInt16BE(6);
    const cookie = this.#pending.subarray(8, 16);
    const [offset, length] = [this.#pending.readUInt32BE(20), this.#pending.readUInt32BE(24)];
    const end = HEADER_BYTES + (command === WRITE ? length : 0);
    if (this.#pending.length < end) return undefined;
    const payload = this.#pending.subarray(HEADER_BYTES, end);
    this.#pending = this.#pending.subarray(end);
    return {
      command,
      cookie,
      perform: () => {
        if (command === WRITE) this.#memory.set(payload, offset);
        if (command !== READ) return reply(cookie);
        return concatenate([reply(cookie), this.#memory.slice(offset, offset + length)]);
      },
    };
  }
}

const UNASKED = "it answered what it was not asked";
const GONE = "the server closed the connection";

/** The data of short reads takes another path than that of long ones. */
describe.each([512, 96 * 1024])("requests of %d bytes", (length) => {
  test.each<[string, Misbehave, string]>([
    ["hangs up", () => ["end"], GONE],
    ["has done it, and hangs up", ({ perform }) => (perform(), ["end"]), GONE],
    ["sends half an answer", ({ perform }) => [perform().subarray(0, 9), "end"], GONE],
    [
      "sends half the data",
      ({ perform, command }) => [perform().subarray(0, command === READ ? length - 99 : 7), "end"],
      GONE,
    ],
    ["answers another", () => [reply(new Uint8Array(8).fill(9))], UNASKED],
    ["answers twice at once", ({ perform, cookie }) => [perform(), reply(cookie)], UNASKED],
    // Nothing is done of the second one, whose place in the client's table is that of the first.
    [
      "answers twice, later",
      ({ perform }, [first]) => [first === undefined ? perform() : reply(first.cookie)],
      UNASKED,
    ],
    ["sends more", ({ perform }) => [perform(), new Uint8Array(64)], "it sent what is no reply"],
    ["is shutting down", ({ cookie }) => [reply(cookie, ESHUTDOWN)], "the server is shutting down"],
  ])(
    "a server that %s",
    async (_, misbehave, line) => {
      const lines: string[] = [];
      using server = new HostileServer(misbehave);
      const device = await connectNbd(server.uri, { log: (each) => lines.push(each) });
      for (const byte of [1, 2, 3]) {
        const block = new Uint8Array(length).fill(byte);
        await device.write?.(block, byte * length, { fua: false });
        const seen = new Uint8Array(length);
        await device.read(seen, byte * length);
        expect(seen).toEqual(block);
      }
      await device.flush?.();
      expect([0, 1, 2, 3].map((at) => server.memory[at * length])).toEqual([0, 1, 2, 3]);
      expect(lines.filter((each) => each.includes("offers no flush"))).toEqual([]);
      expect(lines.find((each) => each.includes("requests wait until it is back"))).toContain(line);
      await device.close?.();
    },
    20_000,
  );
});
