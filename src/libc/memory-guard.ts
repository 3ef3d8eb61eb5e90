/**
 * Keeps a device in memory from using up the memory of the system or of its control group. It leaves a reserve, so that
 * a write fails before the kernel would kill processes to get memory.
 */
import { errno } from "../uapi/errno.ts";
import { type MemoryLimit, MemoryLimits } from "./cgroup.ts";
import { commitRoom, type MemoryInfo, memoryInfo } from "./meminfo.ts";
import type { Memory } from "./memory.ts";
import { PAGE } from "./pagemap.ts";

const MIB = 2 ** 20;

/** The reserve for everybody else: a sixteenth of all memory, within these bounds in bytes. */
const RESERVE_MIN = 24 * MIB;
const RESERVE_MAX = 512 * MIB;
/** The maximum that is taken before the guard checks the system again, in bytes. */
const ALLOWANCE_MAX = 64 * MIB;
/** The minimum, even if it uses the reserve: a check takes about as long as allocating some hundred pages. */
const ALLOWANCE_MIN = 2 * MIB;
/** Between the two, this part of what is available, because others take memory meanwhile. */
const ALLOWANCE_PART = 1 / 4;
/**
 * If less than this is left for each thread, in bytes, memory is allocated when it is admitted. Otherwise it is
 * allocated when the data comes, so the system does not see the admitted part yet: a queue may have 128 requests of a
 * MiB.
 */
const LOW_PER_THREAD = 128 * MIB;
/** Once memory is used up, new memory is refused until this much more than a write needs is available, in bytes. */
const RESUME = 4 * MIB;
/** The minimum time between two checks until then, in milliseconds, unless memory was given back. */
const LOOK_EVERY_MS = 20;

/** The memory that can still be taken. */
export interface Spare {
  /** Includes swap space, excludes the reserve; zero or less when memory is low. */
  readonly bytes: number;
  /** Why writes fail if no memory is left, as the beginning of a sentence. */
  readonly cause: string;
  /** The system may commit it to another process at any time, so memory must be allocated when it is admitted. */
  readonly isContested?: boolean;
}

const groups = new MemoryLimits();

/** Undefined without /proc. */
export function spareMemory(
  info: MemoryInfo | undefined = memoryInfo(),
  limits: readonly MemoryLimit[] = groups.look(info?.swapFree ?? 0),
): Spare | undefined {
  if (info === undefined) return undefined;
  const bytes = info.available + info.swapFree - reserveOf(info.total);
  let spare: Spare = { bytes, cause: "the system's memory is used up" };
  for (const { group, limit, room } of limits) {
    const left = room - reserveOf(limit);
    if (left < spare.bytes) {
      spare = { bytes: left, cause: `the memory limit of control group ${group} is reached` };
    }
  }
  return spare;
}

/**
 * As {@link spareMemory}, for files in memory, which the system commits a page at a time: a process that writes to a
 * page that the system refuses gets SIGBUS.
 */
export function spareForFiles(
  info: MemoryInfo | undefined = memoryInfo(),
  room: number = info === undefined ? Number.POSITIVE_INFINITY : commitRoom(info),
  spare: Spare | undefined = spareMemory(info),
): Spare | undefined {
  if (spare === undefined || room === Number.POSITIVE_INFINITY) return spare;
  const cause = "the memory that the system promises with vm.overcommit_memory=2 is used up";
  return {
    ...(room - RESERVE_MIN < spare.bytes ? { bytes: room - RESERVE_MIN, cause } : spare),
    isContested: true,
  };
}

function reserveOf(total: number): number {
  return Math.min(Math.max(total / 16, RESERVE_MIN), RESERVE_MAX);
}

/** The state shared by threads that write to the same memory. */
export type GuardState = Int32Array<SharedArrayBuffer>;

/** The index of a word: units that may be taken before the next check. */
const LEFT = 0;
/** No memory may be taken: only allocated ranges can be written. */
const IS_USED_UP = 1;
/** Units of the last refused write, until there is memory for it. */
const REFUSED = 2;
/** See {@link LOW_PER_THREAD}, and {@link Spare}. */
const IS_LOW = 3;
/** Memory was given back since the last check. */
const GIVEN_BACK = 4;
/** The number of guards with this state. */
const THREADS = 5;
const WORDS = 6;
/** The unit of counting, in bytes. */
const UNIT = 4096;

export interface MemoryGuardOptions {
  /** The memory that writing one byte takes, in bytes: a power of two. Default: a page. */
  readonly granule?: number;
  /** Gets a line from one of the threads when writes begin to fail, and when they succeed again. */
  readonly log?: ((line: string) => void) | undefined;
  /** The state of another thread's guard. */
  readonly state?: GuardState | undefined;
  readonly spare?: () => Spare | undefined;
}

type GuardedMemory = Pick<Memory, "isFile" | "runs" | "populate">;

/** One for each area and thread. Checks the system once in many writes, and allocates nothing for the others. */
export class MemoryGuard {
  readonly state: GuardState;
  readonly #memory: GuardedMemory;
  readonly #granule: number;
  readonly #log: (line: string) => void;
  readonly #spare: () => Spare | undefined;
  #cause = "";
  #nextLook = 0;

  constructor(memory: GuardedMemory, options: MemoryGuardOptions = {}) {
    this.#memory = memory;
    this.#granule = Math.max(options.granule ?? 0, PAGE);
    this.#log = options.log ?? (() => undefined);
    this.#spare = options.spare ?? (memory.isFile ? spareForFiles : spareMemory);
    this.state = options.state ?? new Int32Array(new SharedArrayBuffer(WORDS * Int32Array.BYTES_PER_ELEMENT));
    Atomics.add(this.state, THREADS, 1);
  }

  /** Why the last write was refused. */
  get cause(): string {
    return this.#cause;
  }

  /** Call it before a write to the range. Returns 0, or ENOSPC. Ranges that are allocated can always be written. */
  admit(offset: number, length: number): number {
    const { state } = this;
    const units = this.#unitsOf(offset, length);
    const isFree = state[IS_USED_UP] === 0 && Atomics.sub(state, LEFT, units) >= units;
    if (isFree || this.#look(units)) return state[IS_LOW] === 0 ? 0 : this.#populate(offset, length, units);
    return this.#isAllocated(offset, length) ? 0 : this.#refuse(units);
  }

  /** Call it after giving memory back: some may be available again. */
  givenBack(): void {
    if (this.state[IS_USED_UP] !== 0) this.state[GIVEN_BACK] = 1;
  }

  #unitsOf(offset: number, length: number): number {
    const granule = this.#granule;
    const first = Math.floor(offset / granule);
    const last = Math.floor((offset + length - 1) / granule);
    return (last - first + 1) * (granule / UNIT);
  }

  /** Checks the system, unless that was done a moment ago. Returns whether that many units can be taken. */
  #look(units: number): boolean {
    const { state } = this;
    const wasUsedUp = state[IS_USED_UP] !== 0;
    const now = performance.now();
    if (Atomics.exchange(state, GIVEN_BACK, 0) === 0 && wasUsedUp && now < this.#nextLook) return false;
    this.#nextLook = now + LOOK_EVERY_MS;
    // Without /proc the available memory is unknown.
    const spare: Spare = this.#spare() ?? { bytes: Number.POSITIVE_INFINITY, cause: "" };
    const { bytes, cause, isContested = false } = spare;
    const isEnough = bytes >= units * UNIT + (wasUsedUp ? RESUME : 0);
    // A write that is too long for the rest says nothing about the next one.
    const isUsedUp = !isEnough && bytes < 2 * RESUME;
    const allowance = Math.min(ALLOWANCE_MAX, Math.max(ALLOWANCE_MIN, bytes * ALLOWANCE_PART));
    Atomics.store(state, LEFT, isUsedUp ? 0 : Math.floor(allowance / UNIT));
    state[IS_USED_UP] = isUsedUp ? 1 : 0;
    const low = ALLOWANCE_MAX + LOW_PER_THREAD * Atomics.load(state, THREADS);
    state[IS_LOW] = isContested || bytes < low ? 1 : 0;
    this.#cause = cause;
    const refused = Atomics.load(state, REFUSED);
    if (bytes >= refused * UNIT + RESUME && Atomics.exchange(state, REFUSED, 0) !== 0)
      this.#log("there is memory again: writes succeed");
    return isEnough;
  }

  #refuse(units: number): number {
    if (Atomics.exchange(this.state, REFUSED, units) === 0)
      this.#log(`${this.#cause}: writes fail until some is free, or is trimmed`);
    return errno.ENOSPC;
  }

  /** Linux before 5.14 cannot populate: the write then takes its memory a moment later. */
  #populate(offset: number, length: number, units: number): number {
    const result = this.#memory.populate(offset, length);
    return result >= 0 || result === -errno.EINVAL ? 0 : this.#refuse(units);
  }

  #isAllocated(offset: number, length: number): boolean {
    return this.#memory.runs(offset, length)?.every((run) => run.allocated) === true;
  }
}
