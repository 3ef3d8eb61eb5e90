/** Devices that return promises, and turns of the event loop for them to settle. */
import { type Hold, type Method, Shadow } from "./shadow.ts";

/** Returns a promise from each call, whether or not it is held. */
export class AsyncStore extends Shadow {
  protected override async gate(offset: number, length: number, method: Method): Promise<void> {
    await this.hold(offset, length, method);
  }
}

/** Its calls take one to four turns of the event loop. */
export class SlowStore extends AsyncStore {
  override hold: Hold = () => turns(1 + ((this.calls.length * 7) % 4));
}

/** Waits for `count` turns of the event loop. */
export async function turns(count: number): Promise<void> {
  for (let turn = 0; turn < count; turn += 1) await new Promise((resolve) => setImmediate(resolve));
}
