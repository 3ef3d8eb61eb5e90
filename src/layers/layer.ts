/**
 * What a layer is: a device made of another one, with something added on the way. Devices and transports know
 * nothing of layers.
 */
import type { BlockDevice } from "../device.ts";

/**
 * Puts itself before a device. What the device below can do, the layer can do as well, unless it is the point of the
 * layer to change that. Closing the layered device closes the one below.
 *
 * @example
 *     const device = applyLayers(new Ramdisk(2 ** 26), [logLayer(), cowLayer()]);
 */
export type Layer = (device: BlockDevice) => BlockDevice;

/**
 * The device with the layers around it, in the order in which data passes them: the first is nearest to the transport.
 * The device is closed if a layer throws, and what it throws is thrown on.
 */
export function applyLayers(device: BlockDevice, layers: readonly Layer[]): BlockDevice {
  let top = device;
  try {
    for (const layer of layers.toReversed()) top = layer(top);
  } catch (error) {
    void abandon(top);
    throw error;
  }
  return top;
}

/** Closes a device that nobody has used: what else fails is of no interest. */
async function abandon(device: BlockDevice): Promise<void> {
  await Promise.resolve(device)
    .then((each) => each.close?.())
    .catch(() => undefined);
}
