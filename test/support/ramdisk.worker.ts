/** A second thread that serves a RAM disk: it writes what it is told, or at random until it is told to stop. */
import { openShared } from "../../devices/ramdisk.ts";
import type { BlockDevice } from "../../src/device.ts";
import { Random } from "../../src/values/random.ts";

declare const self: Worker;

/** Words of `control`: set to make it stop; the number of writes. */
export const STOP = 0;
export const WRITES = 1;

/** `open` comes first. Each task is answered with a message when it is done. */
export type RamdiskTask =
  | { readonly kind: "open"; readonly state: unknown }
  | { readonly kind: "write"; readonly offset: number; readonly length: number; readonly byte: number }
  | { readonly kind: "race"; readonly seed: number; readonly length: number; readonly control: Int32Array };

let disk: BlockDevice | undefined;

function perform(task: RamdiskTask): void {
  switch (task.kind) {
    case "open":
      disk = openShared(task.state, () => undefined);
      return;
    case "write":
      void disk?.write?.(new Uint8Array(task.length).fill(task.byte), task.offset, { fua: false });
      return;
    case "race": {
      const random = new Random(task.seed);
      const bytes = new Uint8Array(task.length).fill(0xff);
      const places = (disk?.size ?? 0) / task.length;
      while (Atomics.load(task.control, STOP) === 0) {
        void disk?.write?.(bytes, random.below(places) * task.length, { fua: false });
        Atomics.add(task.control, WRITES, 1);
      }
    }
  }
}

self.addEventListener("message", ({ data }: MessageEvent<RamdiskTask>) => {
  perform(data);
  self.postMessage("done");
});
