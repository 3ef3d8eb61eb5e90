/**
 * What a layer is: a device made from another one, with something added. Devices and transports know nothing about
 * layers.
 */
import type { BlockDevice } from "../device.ts";

/**
 * Puts itself before a device. It can do whatever the device below can do, unless the purpose of the layer is to change
 * that. Closing the layered device closes the one below.
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

/** Closes a device that was never used, and ignores a failure to do so. */
async function abandon(device: BlockDevice): Promise<void> {
  await Promise.resolve(device)
    .then((each) => each.close?.())
    .catch(() => undefined);
}
