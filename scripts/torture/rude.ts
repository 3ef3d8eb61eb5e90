/**
 * Clients of an NBD server that misbehave until they are killed: they leave in the middle of a handshake, of a request
 * or of its payload, send many requests and read nothing, or talk nonsense. Arguments: the URI, a seed.
 */
import { NBD_CMD_READ, NBD_CMD_WRITE } from "../../src/uapi/nbd.ts";
import { Random } from "../../src/values/random.ts";
import { NbdConnection } from "./client/nbd-connection.ts";
import { encodeRequest } from "./client/nbd-store.ts";

const MIB = 2 ** 20;
const HEADER_BYTES = 28;
/** Clients at a time. */
const CLIENTS = 4;

const [, , uri = "", seed = "0"] = process.argv;

async function misbehave(random: Random): Promise<void> {
  const connection = await NbdConnection.connect(uri);
  const kind = random.below(6);
  if (kind === 0) connection.send(random.bytes(1 + random.below(64)));
  if (kind > 1) await connection.negotiate();
  // The end of the device, which nobody else uses: part of an interrupted write may end up there.
  const offset = 15 * MIB;
  if (kind === 2) connection.send(random.bytes(256));
  if (kind === 3) {
    const header = encodeRequest({ command: NBD_CMD_READ, cookie: 1, offset, length: MIB });
    connection.send(header.subarray(0, 1 + random.below(HEADER_BYTES - 1)));
  }
  if (kind === 4) {
    connection.send(encodeRequest({ command: NBD_CMD_WRITE, cookie: 1, offset, length: MIB }));
    connection.send(new Uint8Array(random.below(MIB)));
  }
  if (kind === 5) {
    connection.pause();
    for (let cookie = 1; cookie <= 64; cookie += 1)
      connection.send(encodeRequest({ command: NBD_CMD_READ, cookie, offset, length: MIB }));
  }
  await Bun.sleep(random.below(200));
  if (!random.oneIn(4)) connection.close();
}

async function misbehaveForEver(random: Random): Promise<never> {
  for (;;) {
    // The server may refuse another client, or disconnect this one.
    await misbehave(random).catch((error: unknown) => console.error(String(error)));
    await Bun.sleep(10);
  }
}

const random = new Random(Number(seed));
await Promise.all(Array.from({ length: CLIENTS }, () => misbehaveForEver(random)));
