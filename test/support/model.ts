/** The expected state of a device and its replies after any requests: the protocol's rules on a plain array. */
import {
  EINVAL,
  ENOSPC,
  FLUSH,
  FUA,
  NO_HOLE,
  READ,
  type Request,
  TRIM,
  WRITE,
  WRITE_ZEROES,
} from "./golden.ts";
import type { Random } from "./random.ts";

const BLOCK = 512;

export class Model {
  readonly bytes: Uint8Array;

  constructor(readonly size: number) {
    this.bytes = new Uint8Array(size);
  }

  /** Carries out the request and returns the expected reply. */
  apply(request: Request): { readonly error: number; readonly payload: Uint8Array } {
    const error = this.#errorOf(request);
    const [start, end] = rangeOf(request);
    if (error !== 0) return { error, payload: new Uint8Array() };
    if (request.command === READ) return { error, payload: this.bytes.slice(start, end) };
    if (request.payload !== undefined) this.bytes.set(request.payload, start);
    else if (request.command !== FLUSH) this.bytes.fill(0, start, end);
    return { error, payload: new Uint8Array() };
  }

  #errorOf({ command, flags = 0, offset = 0, length = 0, payload }: Request): number {
    const allowed = command === WRITE_ZEROES ? FUA | NO_HOLE : FUA;
    if ((flags & ~allowed) !== 0) return EINVAL;
    if (command === FLUSH) return 0;
    if (![READ, WRITE, TRIM, WRITE_ZEROES].includes(command)) return EINVAL;
    const start = BigInt(offset);
    const bytes = BigInt(payload?.length ?? length);
    const unit = BigInt(BLOCK);
    if (start + bytes > BigInt(this.size)) return command === READ ? EINVAL : ENOSPC;
    return bytes === 0n || start % unit !== 0n || bytes % unit !== 0n ? EINVAL : 0;
  }
}

/** The range in bytes; meaningless if the request is invalid. */
export function rangeOf(request: Request): readonly [number, number] {
  const start = Number(request.offset ?? 0);
  return [start, start + (request.payload?.length ?? request.length ?? 0)];
}

/** Requests for a device of `size` bytes, one in eight of them invalid in some way. */
export class RequestSource {
  readonly #noise: Uint8Array;
  #cookie = 0n;

  constructor(
    readonly random: Random,
    readonly size: number,
    /** The maximum length in bytes, in whole blocks. */
    readonly longest: number,
  ) {
    this.#noise = random.bytes(2 * longest);
  }

  next(): Request {
    const { random } = this;
    const command = random.pick([READ, READ, READ, WRITE, WRITE, WRITE, TRIM, WRITE_ZEROES, FLUSH]);
    const length = BLOCK * (1 + random.below(random.oneIn(4) ? this.longest / BLOCK : 8));
    const offset = BLOCK * random.below((this.size - length) / BLOCK + 1);
    const flags = (random.oneIn(4) ? FUA : 0) | (command === WRITE_ZEROES && random.oneIn(2) ? NO_HOLE : 0);
    const right = { command, flags, offset, length };
    const { length: bytes, ...rest } = random.oneIn(8) ? this.#spoil(right) : right;
    this.#cookie += BigInt(random.word()) + 1n;
    const request = { ...rest, cookie: this.#cookie };
    return rest.command === WRITE
      ? { ...request, payload: this.#payload(bytes) }
      : { ...request, length: bytes };
  }

  #payload(length: number): Uint8Array {
    const at = this.random.below(this.longest);
    return this.#noise.subarray(at, at + length);
  }

  #spoil(right: Spoilable): Spoilable {
    const { random, size } = this;
    const ways: readonly (() => Partial<Spoilable>)[] = [
      () => ({ command: random.pick([5, 7, 8, 0x80, 0xffff]) }),
      () => ({ flags: 1 << (1 + random.below(15)) }),
      () => ({ length: 0 }),
      () => ({ length: 1 + random.below(BLOCK - 1) }),
      () => ({ offset: Number(right.offset) + 1 + random.below(BLOCK - 1) }),
      () => ({ offset: size - right.length + BLOCK }),
      () => ({ offset: size + BLOCK * random.below(1000) }),
      () => ({ offset: 2n ** BigInt(32 + random.below(32)) }),
      () => ({ offset: 2n ** 64n - BigInt(BLOCK * (1 + random.below(8))) }),
    ];
    return { ...right, ...random.pick(ways)() };
  }
}

interface Spoilable {
  readonly command: number;
  readonly flags: number;
  readonly offset: number | bigint;
  readonly length: number;
}
