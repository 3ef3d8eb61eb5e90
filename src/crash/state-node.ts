/** A node that shows one state of the disk after another. What is written to it stays in memory. */
import { type Attachment, attach } from "../attach.ts";
import type { BlockDevice } from "../device.ts";
import { ErrnoError, messageOf, UserError } from "../errors.ts";
import { copyOnWrite } from "../layers/cow.ts";
import { MemoryOverlay } from "../layers/overlay.ts";
import { errorText, unwrap } from "../libc/errno.ts";
import { pread } from "../libc/file.ts";
import { forgetApart } from "../nodes/apart.ts";
import { findUse } from "../nodes/node-use.ts";
import { errno } from "../uapi/errno.ts";

export interface NodeOptions {
  /** `auto`, `nbd` or `ublk`. */
  readonly target: string;
  readonly log: (line: string) => void;
}

/** When a process ends, the kernel still has to unmount what it left mounted in its own namespace. Milliseconds. */
const RELEASE_MS = 10_000;
const RETRY_MS = 5;
/** Milliseconds for closing: what was written is no longer needed. */
const CLOSE_MS = 5000;

export class StateNode {
  #state: BlockDevice | undefined;
  #attachment: Attachment | undefined;

  private constructor(readonly size: number) {}

  /** @throws UserError without a driver, or without root. */
  static async attach(size: number, { target, log }: NodeOptions): Promise<StateNode> {
    const node = new StateNode(size);
    node.#attachment = await attach(node.#device(), target, { log });
    return node;
  }

  get path(): string {
    return this.#attachment?.path ?? "";
  }

  /**
   * From now on the node shows the file's contents, and what is then written to the node.
   * @param fd of a file of the node's size that does not change until the next call.
   * @throws UserError if the node is still in use.
   */
  async show(fd: number): Promise<void> {
    await this.#forget();
    this.#discard();
    const base: BlockDevice = {
      size: this.size,
      read: (target, offset) => void unwrap(pread(fd, target, offset), "pread"),
    };
    this.#state = copyOnWrite(base, new MemoryOverlay(this.size));
    // A program that read the node in between, such as udev, may have left some of the previous state cached.
    await this.#forget();
  }

  /** @throws UserError */
  async close(): Promise<void> {
    await this.#attachment?.close({ timeoutMs: CLOSE_MS });
    this.#discard();
  }

  #discard(): void {
    void this.#state?.close?.();
    this.#state = undefined;
  }

  /** Drops what the system caches of the node. */
  async #forget(): Promise<void> {
    // Nothing else keeps this process alive during the wait.
    const alive = setInterval(() => undefined, RELEASE_MS);
    await this.#forgetInTime(performance.now() + RELEASE_MS).finally(() => clearInterval(alive));
  }

  async #forgetInTime(deadline: number): Promise<void> {
    for (;;) {
      const result = await this.#askToForget();
      if (result >= 0) return;
      if (result === -errno.EBUSY && performance.now() < deadline) {
        await Bun.sleep(RETRY_MS);
        continue;
      }
      const use = findUse(this.path.replace(/^\/dev\//, ""));
      const how = result === -errno.EBUSY ? (use?.how ?? "in use") : errorText(-result);
      throw new UserError(
        `${this.path} cannot be given another state (${how}): the checker has to release it at its end`,
      );
    }
  }

  async #askToForget(): Promise<number> {
    try {
      return await forgetApart(this.path);
    } catch (error) {
      throw new UserError(
        `${this.path} cannot be given another state, no process can be started (${messageOf(error)}): give fewer --jobs, or leave out --device`,
        { cause: error },
      );
    }
  }

  #device(): BlockDevice {
    const current = (): BlockDevice => {
      if (this.#state === undefined) throw new ErrnoError("EIO", "there is no state yet");
      return this.#state;
    };
    return {
      size: this.size,
      // The system looks for partitions before the first state is shown: it finds zeroes.
      read: (target, offset) =>
        this.#state === undefined ? void target.fill(0) : this.#state.read(target, offset),
      write: (source, offset, how) => current().write?.(source, offset, how),
      trim: (offset, length, how) => current().trim?.(offset, length, how),
      writeZeroes: (offset, length, how) => current().writeZeroes?.(offset, length, how),
    };
  }
}
