/** Calls a method of a device, and judges what it did. */
import { type BlockDevice, DEFAULT_BLOCK_SIZE, type Extent } from "../device.ts";
import { ErrnoError, messageOf } from "../errors.ts";
import { type Done, whenDone } from "../layers/around.ts";
import { adopt, adoptDone } from "../values/promise.ts";
import { Random } from "../values/random.ts";
import { LentBuffer } from "./lent-buffer.ts";
import type { Model } from "./model.ts";
import { DATA, NOISE_PERIOD } from "./noise.ts";
import type { Operation, RangeOperation } from "./operation.ts";
import { ReturnedBuffers } from "./returned-buffers.ts";

/** What is wrong; undefined if nothing. */
export type Verdict = string | undefined;

type Of<Kind extends Operation["kind"]> = Extract<Operation, { readonly kind: Kind }>;

export class Caller {
  readonly returned = new ReturnedBuffers();
  readonly #random = new Random(0);

  constructor(
    readonly device: BlockDevice,
    readonly model: Model,
  ) {}

  /** `by` names the call in later messages. A returned promise never rejects. */
  call(operation: Operation, by: string): Verdict | Promise<Verdict> {
    switch (operation.kind) {
      case "read":
        return this.#read(operation, by);
      case "write":
        return this.#write(operation, by);
      case "trim":
      case "writeZeroes":
        return judge(
          () => this.#change(operation),
          () => {
            this.#apply(operation, by);
            return undefined;
          },
        );
      case "extents":
        return this.#extents(operation);
      case "flush":
        return this.#flush();
      default:
        return undefined;
    }
  }

  #flush(): Verdict | Promise<Verdict> {
    const begun = this.model.flushBegun();
    return judge(
      () => this.device.flush?.(),
      () => {
        this.model.flushed(begun);
        return undefined;
      },
    );
  }

  #apply(operation: Operation, by: string): void {
    this.model.apply(operation, by, "fua" in operation && operation.fua);
    // Everything that such a device has done is on stable storage.
    if (this.device.flush === undefined) this.model.flushed(this.model.flushBegun());
  }

  #read({ offset, length }: RangeOperation, by: string): Verdict | Promise<Verdict> {
    const buffer = LentBuffer.target(length, this.#anywhere());
    return judge(
      () => this.device.read(buffer.bytes, offset),
      () =>
        buffer.trespass() ??
        buffer.unfilled() ??
        this.model.verify(buffer.bytes, offset) ??
        this.#takeBack(buffer, by),
    );
  }

  #write(operation: Of<"write">, by: string): Verdict | Promise<Verdict> {
    const { offset, length, fill, fua } = operation;
    const buffer = LentBuffer.source(length, this.#anywhere(), fill + offset);
    const options = { fua: fua && this.#isNative() };
    return judge(
      () => this.#force(this.device.write?.(buffer.bytes, offset, options), fua),
      () => {
        this.#apply(operation, by);
        const isChanged = DATA.mismatch(buffer.bytes, fill + offset) >= 0;
        const wrong = buffer.trespass() ?? (isChanged ? "changed the data that it was to store" : undefined);
        return wrong ?? this.#takeBack(buffer, by);
      },
    );
  }

  #change(operation: Of<"trim" | "writeZeroes">): Done {
    const { offset, length } = operation;
    const fua = operation.fua && this.#isNative();
    const done =
      operation.kind === "trim"
        ? this.device.trim?.(offset, length, { fua })
        : this.device.writeZeroes?.(offset, length, { fua, mayTrim: operation.mayTrim });
    return this.#force(done, operation.fua);
  }

  #extents({ offset, length }: RangeOperation): Verdict | Promise<Verdict> {
    try {
      const found = adopt(this.device.extents?.(offset, length) ?? []);
      if (!(found instanceof Promise)) return this.#judgeExtents(found, offset, length);
      return found.then((extents) => this.#judgeExtents(extents, offset, length)).catch(failed);
    } catch (error) {
      return failed(error);
    }
  }

  #judgeExtents(extents: readonly Extent[], offset: number, length: number): Verdict {
    if (extents.length === 0) return "returned no extents, where at least one is expected";
    const blockSize = this.device.blockSize ?? DEFAULT_BLOCK_SIZE;
    let start = offset;
    for (const extent of extents) {
      if (!(extent.length > 0) || extent.length % blockSize !== 0) {
        return `returned an extent of ${extent.length} bytes, which is not whole blocks`;
      }
      const part = Math.min(extent.length, offset + length - start);
      const contradiction = extent.zero && part > 0 ? this.model.contradictsZero(start, part) : undefined;
      if (contradiction !== undefined) return contradiction;
      start += extent.length;
    }
    return undefined;
  }

  /** Emulates FUA as the dispatcher does for a device without it. */
  #force(done: Done, fua: boolean): Done {
    return !fua || this.#isNative() ? done : whenDone(done, () => this.device.flush?.());
  }

  #isNative(): boolean {
    return this.device.fua === "native";
  }

  /** Overwrites the buffer, so that a device that kept it for later finds something else in it. */
  #takeBack(buffer: LentBuffer, by: string): Verdict {
    buffer.takeBack(this.#anywhere());
    return this.returned.add(buffer, by);
  }

  #anywhere(): number {
    return this.#random.below(NOISE_PERIOD);
  }
}

/** Calls a method, and then `check` when it is done. */
function judge(invoke: () => Done, check: () => Verdict): Verdict | Promise<Verdict> {
  try {
    const done = adoptDone(invoke());
    return done === undefined ? check() : done.then(check, failed);
  } catch (error) {
    return failed(error);
  }
}

function failed(thrown: unknown): string {
  const name = thrown instanceof ErrnoError ? `${thrown.code}: ` : "";
  return `failed: ${name}${messageOf(thrown)}`;
}
