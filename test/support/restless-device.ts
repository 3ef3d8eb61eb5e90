/** A device that answers some requests at once and others later, like one that sometimes needs its disk. */
import { Waker } from "../../src/libc/waker.ts";
import { addTo } from "../../src/libc/eventfd.ts";
import type { Random } from "./random.ts";
import { type Hold, Shadow } from "./shadow.ts";

/**
 * A third of the calls are done at once. The others complete in random order, a few whenever the kernel wakes the
 * thread.
 */
export class RestlessDevice extends Shadow {
  readonly #waker = new Waker(() => this.#wake());
  readonly #putOff: (() => void)[] = [];

  constructor(
    size: number,
    readonly random: Random,
  ) {
    super(size);
  }

  override hold: Hold = () => {
    if (this.random.oneIn(3)) return undefined;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#putOff.push(resolve);
    addTo(this.#waker.fd);
    return promise;
  };

  override close(): Promise<void> {
    return this.#waker.close();
  }

  #wake(): void {
    const count = 1 + this.random.below(this.#putOff.length);
    for (let done = 0; done < count && this.#putOff.length > 0; done += 1) {
      const [resolve] = this.#putOff.splice(this.random.below(this.#putOff.length), 1);
      resolve?.();
    }
    if (this.#putOff.length > 0) addTo(this.#waker.fd);
  }
}
