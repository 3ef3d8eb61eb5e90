/**
 * How long requests spend in each layer before a device, and in the device. A probe stands before each of them and
 * passes requests on; it looks at the clock only while somebody watches. A device without layers has no probes: its
 * time is that of its requests (see queues/ledger.ts).
 */
import type { BlockDevice } from "../device.ts";
import { type Done, shapeOf } from "./around.ts";
import { applyLayers, type Layer } from "./layer.ts";
import { timed } from "./timed.ts";

/** A layer, or the device below the last one, while somebody watched. */
export interface LayerTime {
  /** `cow`, `device`. */
  readonly name: string;
  readonly requests: number;
  /** Milliseconds of all requests, without the time in what is below. Less than it was where that is asked at once. */
  readonly ms: number;
}

interface Level {
  readonly name: string;
  requests: number;
  /** Milliseconds, what is below included. */
  ms: number;
}

export class LayerTimes {
  #isOn = false;
  #timer: Timer | undefined;
  readonly #levels: Level[] = [];

  /** As {@link applyLayers}. @param names of the layers. */
  apply(device: BlockDevice, layers: readonly Layer[], names: readonly string[]): BlockDevice {
    if (layers.length === 0) return device;
    const stack = layers.flatMap((layer, index) => [this.#probe(names[index] ?? ""), layer]);
    return applyLayers(device, [...stack, this.#probe("device")]);
  }

  /** Somebody watches, for so long at least. */
  watch(milliseconds: number): void {
    if (this.#levels.length === 0) return;
    this.#isOn = true;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => (this.#isOn = false), milliseconds).unref();
  }

  /** The first is nearest to the transport, the last is the device; none where there are no layers. */
  get times(): LayerTime[] {
    return this.#levels.map(({ name, requests, ms }, index) => ({
      name,
      requests,
      ms: Math.max(0, ms - (this.#levels[index + 1]?.ms ?? 0)),
    }));
  }

  #probe(name: string): Layer {
    const level: Level = { name, requests: 0, ms: 0 };
    this.#levels.push(level);
    const count = (microseconds: number): void => {
      level.requests += 1;
      level.ms += microseconds / 1000;
    };
    const pass = (proceed: () => Done): Done => timed(proceed, count);
    return (device) => probed(device, () => this.#isOn, pass);
  }
}

/** The device as it is, with `pass` around its requests while `isOn`. Other threads reach it without a probe. */
function probed(device: BlockDevice, isOn: () => boolean, pass: (proceed: () => Done) => Done): BlockDevice {
  const { identity, memory, shared } = device;
  const [write, flush] = [device.write?.bind(device), device.flush?.bind(device)];
  const [trim, writeZeroes] = [device.trim?.bind(device), device.writeZeroes?.bind(device)];
  const [extents, resize] = [device.extents?.bind(device), device.resize?.bind(device)];
  const close = device.close?.bind(device);
  return {
    ...shapeOf(device),
    get size() {
      return device.size;
    },
    ...(identity !== undefined && { identity }),
    ...(memory !== undefined && { memory }),
    ...(shared !== undefined && { shared }),
    ...(extents !== undefined && { extents }),
    ...(resize !== undefined && { resize }),
    ...(close !== undefined && { close }),
    read: (target, offset) =>
      isOn() ? pass(() => device.read(target, offset)) : device.read(target, offset),
    ...(write !== undefined && {
      write: (source, offset, options) =>
        isOn() ? pass(() => write(source, offset, options)) : write(source, offset, options),
    }),
    ...(flush !== undefined && { flush: () => (isOn() ? pass(flush) : flush()) }),
    ...(trim !== undefined && {
      trim: (offset, length, options) =>
        isOn() ? pass(() => trim(offset, length, options)) : trim(offset, length, options),
    }),
    ...(writeZeroes !== undefined && {
      writeZeroes: (offset, length, options) =>
        isOn() ? pass(() => writeZeroes(offset, length, options)) : writeZeroes(offset, length, options),
    }),
  };
}
