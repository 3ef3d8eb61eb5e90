/** Checks that what a module exports or returns is a block device. The error names the invalid member. */
import { type BlockDevice, DEFAULT_BLOCK_SIZE } from "../device.ts";
import { isBlockSize } from "../dispatch.ts";
import { IDENTITY_MAX, isIdentity } from "../identity.ts";
import { messageOf, UserError } from "../errors.ts";

const OPTIONAL_METHODS = [
  "prepare",
  "write",
  "flush",
  "trim",
  "writeZeroes",
  "extents",
  "takeOver",
  "resize",
  "close",
] as const;

/** @param place stands before the message. @throws UserError */
export function assertDevice(value: unknown, place: string): asserts value is BlockDevice {
  const fault = deviceFault(value);
  if (fault !== undefined) throw new UserError(`${place}: ${fault}`);
}

/** Cause and remedy; undefined when it is a device. */
function deviceFault(value: unknown): string | undefined {
  if (typeof value !== "object" || value === null) {
    return `${describe(value)} is not a block device: export or return an object with size and read()`;
  }
  try {
    return methodFault(value) ?? numbersFault(value) ?? flagsFault(value);
  } catch (error) {
    return `a property of the device cannot be read (${messageOf(error)}): make it one that can`;
  }
}

function methodFault(value: object): string | undefined {
  const read = member(value, "read");
  if (read === undefined) return "the device has no read method: add read(target, offset)";
  if (typeof read !== "function") return `read is ${describe(read)}: make it a method read(target, offset)`;
  for (const name of OPTIONAL_METHODS) {
    const method = member(value, name);
    if (method !== undefined && typeof method !== "function") {
      return `${name} is ${describe(method)}: make it a method, or leave it out`;
    }
  }
  return undefined;
}

function numbersFault(value: object): string | undefined {
  const size = member(value, "size");
  const blockSize = member(value, "blockSize") ?? DEFAULT_BLOCK_SIZE;
  if (typeof blockSize !== "number" || !isBlockSize(blockSize)) {
    return `blockSize is ${describe(blockSize)}: make it 512, 1024, 2048 or 4096, or leave it out`;
  }
  if (size === undefined) return "the device has no size: add size, its length in bytes";
  if (typeof size !== "number") return `size is ${describe(size)}: make it a number of bytes`;
  if (!Number.isSafeInteger(size) || size <= 0 || size % blockSize !== 0) {
    return `size is ${size}: make it a whole number of blocks of ${blockSize} bytes, at least one`;
  }
  return undefined;
}

function flagsFault(value: object): string | undefined {
  const fua = member(value, "fua");
  if (fua !== undefined && fua !== "native")
    return `fua is ${describe(fua)}: make it "native", or leave it out`;
  const rotational = member(value, "rotational");
  if (rotational !== undefined && typeof rotational !== "boolean") {
    return `rotational is ${describe(rotational)}: make it true or false, or leave it out`;
  }
  const identity = member(value, "identity");
  if (identity !== undefined && (typeof identity !== "string" || !isIdentity(identity))) {
    return `identity is ${describe(identity)}: make it a printable text of 1 to ${IDENTITY_MAX} characters, or leave it out`;
  }
  const memory = member(value, "memory");
  if (memory === undefined) return undefined;
  const address = typeof memory === "object" && memory !== null ? member(memory, "address") : undefined;
  return Number.isSafeInteger(address)
    ? undefined
    : "memory has no address: make it a MemoryWindow, or leave it out";
}

function member(value: object, name: string): unknown {
  return Reflect.get(value, name, value);
}

/** What a value is, in a word or two: `the string "4K"`, `null`, `an array`. */
export function describe(value: unknown): string {
  switch (typeof value) {
    case "string":
      return `the string ${JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}…` : value)}`;
    case "object":
      if (value === null) return "null";
      return Array.isArray(value) ? "an array" : "an object";
    case "undefined":
    case "boolean":
    case "number":
      return String(value);
    case "function":
      return "a function";
    default:
      return `a ${typeof value}`;
  }
}
