/** A layer that refuses every change. */
import { closeOnce, identityBehind, shapeOf } from "./around.ts";
import type { Layer } from "./layer.ts";
import type { NamedLayer } from "./options.ts";

/** Removes every method that changes data: the peer sees a read-only device. */
export function readonlyLayer(): Layer {
  return (device) => {
    const { fua: _, ...shape } = shapeOf(device);
    const resize = device.resize?.bind(device);
    const extents = device.extents?.bind(device);
    return {
      ...shape,
      ...identityBehind("readonly", device),
      ...(resize !== undefined && { resize }),
      get size() {
        return device.size;
      },
      // A device without `write` is not written through its window, either.
      ...(device.memory !== undefined && { memory: device.memory }),
      read: (target, offset) => device.read(target, offset),
      ...(extents !== undefined && { extents }),
      close: closeOnce(device),
    };
  };
}

export const readonlyNamed: NamedLayer = {
  name: "readonly",
  summary: "Refuse every change",
  options: {},
  sparesDevice: true,
  make: readonlyLayer,
};
