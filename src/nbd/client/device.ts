/** Another server's export as a device: see {@link connectNbd}. */
import {
  type BlockDevice,
  DEFAULT_BLOCK_SIZE,
  type Extent,
  MAX_BLOCK_SIZE,
  type WriteOptions,
  type WriteZeroesOptions,
} from "../../device.ts";
import { messageOf, UserError } from "../../errors.ts";
import { isIdentity } from "../../identity.ts";
import {
  NBD_CMD_FLAG_FUA,
  NBD_CMD_FLAG_NO_HOLE,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE,
  NBD_CMD_WRITE_ZEROES,
} from "../../uapi/nbd.ts";
import { type Established, establish } from "./establish.ts";
import { wholeBlocks } from "./extents.ts";
import {
  asReadOnly,
  canFlush,
  canForce,
  canTrim,
  canWriteZeroes,
  type ExportFacts,
  isReadOnly,
  isRotational,
} from "./facts.ts";
import { parseRemote, type Remote } from "./remote.ts";
import { Session } from "./session.ts";

export interface NbdOptions {
  /** Connections at once, where the server allows several to one disk. Default 4. */
  readonly connections?: number | undefined;
  /** Refuse every write. Default: only if the export is read-only. */
  readonly readOnly?: boolean | undefined;
  /** Gets a line when the server goes away, why it cannot be reached, and when it is back. */
  readonly log?: ((line: string) => void) | undefined;
}

const CONNECTIONS = 4;
/** The longest trim and the longest range of a query, in bytes: servers count in 32 bits, some with a sign. */
const RANGE_MAX = 2 ** 30;

/**
 * The export of an NBD server as a device. While the server is away, requests wait. Once it is back, or another one at
 * its address has the same export, they continue, after the writes that were answered and not flushed are sent again.
 * The server must still have everything that it reported as flushed.
 *
 * @param uri `nbd://HOST:PORT/NAME` or `nbd+unix:///NAME?socket=PATH`; `unix:PATH` and `tcp:HOST:PORT` for the export
 *   of no name. There is no TLS.
 * @returns a device to be attached, served or put under layers; its `close` ends the connection.
 * @throws UserError if the export is unavailable, naming the cause and the remedy.
 *
 * @example
 *     import { attach, connectNbd } from "tsbuse";
 *
 *     await using attachment = await attach(await connectNbd("nbd://store.example/golden"), "auto");
 */
export async function connectNbd(uri: string, options: NbdOptions = {}): Promise<BlockDevice> {
  const remote = parseRemote(uri);
  const log = options.log ?? (() => undefined);
  const connections = options.connections ?? CONNECTIONS;
  const established = await reach(remote, connections);
  try {
    const facts = options.readOnly === true ? asReadOnly(established.facts) : established.facts;
    const shape = shapeOf(remote, facts, log);
    if (!canFlush(facts) && !isReadOnly(facts))
      log(
        `${remote.uri} offers no flush: what it has answered must outlive it (nbd-server: set "flush = true")`,
      );
    return new NbdDevice(remote, new Session(remote, { ...established, facts }, { connections, log }), shape);
  } catch (error) {
    for (const link of established.links) link.close();
    throw error;
  }
}

async function reach(remote: Remote, connections: number): Promise<Established> {
  try {
    return await establish(remote, connections);
  } catch (error) {
    if (error instanceof UserError) throw error;
    throw new UserError(
      `cannot connect to ${remote.uri}: ${messageOf(error)}: check the address, and that the server runs`,
      { cause: error },
    );
  }
}

interface Shape {
  readonly size: number;
  readonly blockSize: number;
}

/** @throws UserError if the export is not a disk. */
function shapeOf({ uri }: Remote, facts: ExportFacts, log: (line: string) => void): Shape {
  const blockSize = Math.max(DEFAULT_BLOCK_SIZE, facts.blockBytes);
  if (blockSize > MAX_BLOCK_SIZE || !Number.isInteger(Math.log2(blockSize)))
    throw new UserError(
      `${uri} asks for blocks of ${blockSize} bytes: let the server take some of ${MAX_BLOCK_SIZE} or less`,
    );
  if (facts.payloadBytes < blockSize)
    throw new UserError(
      `${uri} takes ${facts.payloadBytes} bytes at once, and asks for blocks of ${blockSize}: mend the server`,
    );
  if (facts.size > Number.MAX_SAFE_INTEGER) throw new UserError(`${uri} is too large: serve a part of it`);
  const rest = facts.size % blockSize;
  const size = facts.size - rest;
  if (size === 0)
    throw new UserError(`${uri} has ${facts.size} bytes: serve at least a block of ${blockSize}`);
  if (rest > 0) log(`the last ${rest} bytes of ${uri} are no whole block, and are left out`);
  return { size, blockSize };
}

class NbdDevice implements BlockDevice {
  readonly size: number;
  readonly blockSize: number;
  readonly rotational: boolean;
  /** Absent if the name is too long for an identity. */
  readonly identity?: string;
  readonly fua?: "native";
  /** Absent, like the methods below, if the server does not offer it. */
  readonly write?: (source: Uint8Array, offset: number, options: WriteOptions) => Promise<void>;
  readonly flush?: () => Promise<void>;
  readonly trim?: (offset: number, length: number, options: WriteOptions) => Promise<void>;
  readonly writeZeroes?: (offset: number, length: number, options: WriteZeroesOptions) => Promise<void>;
  readonly extents?: (offset: number, length: number) => Promise<readonly Extent[]>;
  readonly #session: Session;
  readonly #payloadBytes: number;

  constructor(remote: Remote, session: Session, { size, blockSize }: Shape) {
    const { facts } = session;
    this.#session = session;
    this.#payloadBytes = facts.payloadBytes - (facts.payloadBytes % blockSize);
    this.size = size;
    this.blockSize = blockSize;
    this.rotational = isRotational(facts);
    const identity = `nbd:${remote.uri}`;
    if (isIdentity(identity)) this.identity = identity;
    if (facts.allocationId >= 0) this.extents = this.#extents;
    if (isReadOnly(facts)) return;
    this.write = this.#write;
    if (canForce(facts)) this.fua = "native";
    if (canFlush(facts)) this.flush = this.#flush;
    if (canTrim(facts)) this.trim = this.#trim;
    if (canWriteZeroes(facts)) this.writeZeroes = this.#writeZeroes;
  }

  /** Flushes what a previous process has written, because nothing here could repeat it. */
  async prepare(): Promise<void> {
    await this.flush?.();
  }

  read(target: Uint8Array, offset: number): Promise<void> {
    const length = target.byteLength;
    if (length <= this.#payloadBytes) return this.#session.submit(NBD_CMD_READ, 0, offset, length, target);
    return this.#inPieces(NBD_CMD_READ, 0, offset, length, this.#payloadBytes, target);
  }

  async close(): Promise<void> {
    await this.#session.close();
  }

  #write(source: Uint8Array, offset: number, { fua }: WriteOptions): Promise<void> {
    const flags = fua ? NBD_CMD_FLAG_FUA : 0;
    const length = source.byteLength;
    if (length <= this.#payloadBytes)
      return this.#session.submit(NBD_CMD_WRITE, flags, offset, length, source);
    return this.#inPieces(NBD_CMD_WRITE, flags, offset, length, this.#payloadBytes, source);
  }

  #flush(): Promise<void> {
    // A device that ends need not wait for a server that is gone and has lost nothing.
    if (this.#session.isAwayAndFlushed) return Promise.resolve();
    return this.#session.submit(NBD_CMD_FLUSH, 0, 0, 0);
  }

  #trim(offset: number, length: number, { fua }: WriteOptions): Promise<void> {
    return this.#inPieces(NBD_CMD_TRIM, fua ? NBD_CMD_FLAG_FUA : 0, offset, length, RANGE_MAX);
  }

  #writeZeroes(offset: number, length: number, { fua, mayTrim }: WriteZeroesOptions): Promise<void> {
    const flags = (fua ? NBD_CMD_FLAG_FUA : 0) | (mayTrim ? 0 : NBD_CMD_FLAG_NO_HOLE);
    return this.#inPieces(NBD_CMD_WRITE_ZEROES, flags, offset, length, RANGE_MAX);
  }

  async #extents(offset: number, length: number): Promise<readonly Extent[]> {
    return wholeBlocks(await this.#session.extents(offset, Math.min(length, RANGE_MAX)), this.blockSize);
  }

  /** Sends the pieces one after the other, until one fails. */
  async #inPieces(
    command: number,
    flags: number,
    offset: number,
    length: number,
    pieceBytes: number,
    buffer?: Uint8Array,
  ): Promise<void> {
    for (let done = 0; done < length; done += pieceBytes) {
      const bytes = Math.min(pieceBytes, length - done);
      await this.#session.submit(command, flags, offset + done, bytes, buffer?.subarray(done, done + bytes));
    }
  }
}
