/**
 * The steps of a torture, a pure function of its seed. A step is the whole life of a device, with files of its own, so
 * it can be repeated alone.
 */
import { Random } from "../../src/values/random.ts";

export const TRANSPORTS = ["nbd", "ublk", "server"] as const;
export type Transport = (typeof TRANSPORTS)[number];

/** What stores the data. `module` and `promises` are the same device, disk.ts, which answers at once or later. */
export const BACKINGS = ["ramdisk", "loop", "direct", "cow", "module", "promises"] as const;
export type Backing = (typeof BACKINGS)[number];

/** The users of the device: a client that checks its blocks, fio(1) with verification, a client's files on ext4. */
export const LOADS = ["blocks", "fio", "files"] as const;
export type Load = (typeof LOADS)[number];

interface Rule {
  readonly transports: readonly Transport[];
  readonly backings: readonly Backing[];
  readonly loads: readonly Load[];
}

const NODES = ["nbd", "ublk"] as const;
const MODULES = ["module", "promises"] as const;
const KEPT = ["loop", "direct", "cow", "module", "promises"] as const;
const ANY: Rule = { transports: TRANSPORTS, backings: BACKINGS, loads: LOADS };

/** What can happen to a device in use, and where that makes sense. */
const RULES = {
  calm: ANY,
  delay: ANY,
  kill: ANY,
  stop: ANY,
  "stop-twice": ANY,
  // "tsbuse disconnect" refuses a mounted device.
  disconnect: { ...ANY, transports: NODES, loads: ["blocks"] },
  freeze: ANY,
  // fio and ext4 give up at the first error.
  error: { ...ANY, loads: ["blocks"] },
  full: { ...ANY, backings: ["loop", "cow"], loads: ["blocks"] },
  "full-stop": { ...ANY, backings: ["loop", "cow"], loads: ["blocks"] },
  hang: { ...ANY, backings: MODULES, loads: ["blocks"] },
  "hang-stop": { ...ANY, backings: MODULES, loads: ["blocks"] },
  reload: { ...ANY, backings: MODULES },
  recover: { ...ANY, transports: NODES, backings: KEPT },
  clients: { ...ANY, transports: ["server"] },
} as const satisfies Record<string, Rule>;

export type Act = keyof typeof RULES;

/**
 * The acts that take a node away. The node then reads as an empty file, and fio takes the old contents of its buffer
 * for what it read, so its verdict is worthless there.
 */
const ENDINGS: ReadonlySet<Act> = new Set(["kill", "stop", "stop-twice", "disconnect"]);

const isAct = (word: string): word is Act => Object.hasOwn(RULES, word);
export const ACTS: readonly Act[] = Object.keys(RULES).filter(isAct);

/** All values of --without. */
export const KINDS: readonly string[] = [...new Set([...ACTS, ...TRANSPORTS, ...BACKINGS, ...LOADS])];

export interface Step {
  /** Counts from 1. */
  readonly number: number;
  /** The seed of everything random within the step. */
  readonly seed: number;
  readonly transport: Transport;
  readonly act: Act;
  readonly backing: Backing;
  readonly load: Load;
  /** Threads that serve the device. */
  readonly queues: 1 | 2;
  /** Whether the NBD server's clients use TCP; otherwise a Unix socket. */
  readonly isTcp: boolean;
  /** Bytes of each write. */
  readonly blockBytes: number;
  /** Requests or files in progress at once. */
  readonly lanes: number;
  /** The total number of operations. */
  readonly operations: number;
  /** The part of the operations done when the act begins, from 0 to 1. */
  readonly at: number;
  /** How often a repeated act happens. */
  readonly times: number;
  /** The time between two signals, or of a freeze, in milliseconds. */
  readonly pauseMs: number;
  readonly signal: "SIGTERM" | "SIGINT";
  /** The file system for the files of a step that fills up. */
  readonly fileSystem: "tmpfs" | "ext4";
}

/** Which steps to choose. */
export interface PlanOptions {
  readonly seed: number;
  readonly transport?: Transport | undefined;
  /** Some of {@link KINDS}. */
  readonly without: readonly string[];
}

/** The size of a device, in bytes. */
export const DEVICE_BYTES = 16 * 2 ** 20;
/** Operations for each load: a few seconds of work for an emulated processor. */
const OPERATIONS = { blocks: 1000, fio: 1000, files: 40 } as const satisfies Record<Load, number>;

const PLANTED_OPERATIONS = 4000;

type Card = readonly [Transport, Act, Backing];

/** All valid combinations of transport, act and backing, in a random order: that many steps cover each of them. */
function deck(seed: number): Card[] {
  const random = new Random(seed);
  const cards = ACTS.flatMap((act) =>
    RULES[act].transports.flatMap((transport) =>
      RULES[act].backings.map((backing): Card => [transport, act, backing]),
    ),
  );
  return cards
    .map((card) => ({ card, key: random.word() }))
    .toSorted((one, other) => one.key - other.key)
    .map(({ card }) => card);
}

/** Whether a load can detect the effects of an act. A file system needs a node. */
function canBear(load: Load, act: Act, transport: Transport): boolean {
  return transport === "server" ? load !== "files" : load !== "fio" || !ENDINGS.has(act);
}

const DECK_SIZE = deck(0).length;
/** The distance between the seeds of two consecutive steps. */
const SPREAD = 0x9e37_79b1;

/** The step with this number, even if --without leaves it out. */
export function stepOf(seed: number, number: number): Step {
  const round = Math.floor((number - 1) / DECK_SIZE);
  const card = deck((seed + round) >>> 0)[(number - 1) % DECK_SIZE];
  if (card === undefined) throw new RangeError(`invalid step ${number}`);
  const [transport, act, backing] = card;
  const rule: Rule = RULES[act];
  const random = new Random((new Random(seed).word() + Math.imul(number, SPREAD)) >>> 0);
  const load = random.pick(rule.loads.filter((each) => canBear(each, act, transport)));
  const hasQueues = transport !== "server" && ["ramdisk", "loop", "direct"].includes(backing);
  return {
    number,
    seed: random.word(),
    transport,
    act,
    backing,
    load,
    queues: random.oneIn(2) && hasQueues ? 2 : 1,
    isTcp: random.oneIn(3),
    blockBytes: random.pick(blockSizes(act, load)),
    lanes: random.pick([1, 4, 16]),
    operations: OPERATIONS[load] + random.below(OPERATIONS[load]),
    at: 0.1 + 0.7 * random.fraction(),
    times: 1 + random.below(3),
    pauseMs: random.below(500),
    signal: random.pick(["SIGTERM", "SIGINT"]),
    fileSystem: random.pick(["tmpfs", "ext4"]),
  };
}

/** A step that fills up must write more than there is room for. A write of more than a page to a file may be torn. */
function blockSizes(act: Act, load: Load): readonly number[] {
  if (act === "full" || act === "full-stop") return [16_384];
  return { blocks: [512, 4096, 16_384], fio: [4096], files: [512, 4096] }[load];
}

/** A step that reveals a planted fault on any transport: it has enough writes, and nothing else that disturbs. */
export function plantedStep(step: Step): Step {
  const backing = step.backing === "module" ? "module" : "promises";
  return { ...step, act: "calm", backing, load: "blocks", queues: 1, operations: PLANTED_OPERATIONS };
}

/** The steps from `first` on, without end, except those that are left out. */
export function* stepsFrom(first: number, options: PlanOptions): Generator<Step> {
  const { seed, transport, without } = options;
  for (let number = first; ; number += 1) {
    const step = stepOf(seed, number);
    const words: readonly string[] = [step.act, step.transport, step.backing, step.load];
    if (transport !== undefined && step.transport !== transport) continue;
    if (!words.some((word) => without.includes(word))) yield step;
  }
}

/** `12 kill: loop on ublk, 2 queues; …`: the step in one line. */
export function describeStep(step: Step): string {
  const where = step.transport === "server" ? (step.isTcp ? "tcp" : "unix") : step.transport;
  const queues = step.queues === 1 ? "" : `, ${step.queues} queues`;
  const load = `${step.operations} ${step.load} of ${step.blockBytes} bytes, ${step.lanes} at a time`;
  return `${step.number} ${step.act}: ${step.backing} on ${where}${queues}; ${load}`;
}
