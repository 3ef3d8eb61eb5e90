/** The state of block device nodes and who uses them, from sysfs and procfs. The same for every driver. */
import { attributeNames, readAttribute, readNumber, unescapeOctal } from "../libc/sysfs.ts";

const SECTOR_BYTES = 512;

/** The state of one node. It is read piece by piece and may be out of date at once; the driver has the last word. */
export interface NodeState {
  /** `nbd0`, `ublkb0`. */
  readonly name: string;
  readonly path: string;
  /** Bytes; 0 when nothing is attached. */
  readonly size: number;
  readonly blockSize: number;
  readonly readOnly: boolean;
  readonly rotational: boolean;
  readonly flush: boolean;
  readonly fua: boolean;
  readonly trim: boolean;
  readonly writeZeroes: boolean;
  /** Whether the driver has a server for the node, as far as it knows. */
  readonly attached: boolean;
  /** Whether its server is known to have ended. An NBD node needs a further question: see nbd/node/nodes.ts. */
  readonly leftBehind: boolean;
  /**
   * The process that serves it; undefined if there is none, or if it is invisible from here. An NBD node that was
   * attached by netlink belongs to no process, and a process has another ID in another PID namespace.
   */
  readonly pid: number | undefined;
  /** Whether its users wait for another server because the last one is gone. */
  readonly waiting: boolean;
  /** The identity that the next server must have; undefined if none may take over, or if we may not read it. */
  readonly identity: string | undefined;
  /** Its command line. */
  readonly command: string | undefined;
  readonly mounts: readonly string[];
  /** Devices on top of it (md, dm, bcache), and `swap`. */
  readonly holders: readonly string[];
  readonly partitions: readonly string[];
}

/** What a driver knows about its node. */
interface Served extends Pick<NodeState, "attached" | "leftBehind" | "pid" | "waiting"> {
  readonly identity?: string | undefined;
}

/** What the kernel says about the node of any block device. */
export function nodeState(name: string, served: Served): NodeState {
  const { pid } = served;
  const directory = `/sys/block/${name}`;
  const queue = (attribute: string): number => readNumber(`${directory}/queue/${attribute}`) ?? 0;
  const partitions = partitionNames(name);
  return {
    name,
    path: `/dev/${name}`,
    size: (readNumber(`${directory}/size`) ?? 0) * SECTOR_BYTES,
    blockSize: queue("logical_block_size"),
    readOnly: readNumber(`${directory}/ro`) === 1,
    rotational: queue("rotational") === 1,
    flush: readAttribute(`${directory}/queue/write_cache`) === "write back",
    fua: queue("fua") === 1,
    trim: queue("discard_max_bytes") > 0,
    writeZeroes: queue("write_zeroes_max_bytes") > 0,
    ...served,
    identity: served.identity,
    command: pid === undefined ? undefined : commandOf(pid),
    mounts: mountsOf(name),
    holders: holdersOf(name),
    partitions,
  };
}

/** Also true for a node whose server is gone: it stays while something has it open. */
export function isAttached({ attached, leftBehind, waiting, size }: NodeState): boolean {
  return attached || leftBehind || waiting || size !== 0;
}

/** How many of the kernel's requests are unanswered: reads and writes, the first two numbers. */
export function requestsInFlight(name: string): number {
  const [reads = "", writes = ""] = readAttribute(`/sys/block/${name}/inflight`)?.trim().split(/\s+/) ?? [];
  return Number(reads) + Number(writes);
}

export function partitionNames(name: string): string[] {
  return attributeNames(`/sys/block/${name}`).filter((entry) => new RegExp(`^${name}p\\d+$`).test(entry));
}

function holderNames(disk: string, name: string): string[] {
  const directory = name === disk ? `/sys/block/${disk}` : `/sys/block/${disk}/${name}`;
  return attributeNames(`${directory}/holders`).map((holder) => `/dev/${holder}`);
}

/** Devices on top of a disk and its partitions, and `swap`. */
export function holdersOf(name: string): string[] {
  const names = [name, ...partitionNames(name)];
  return [
    ...names.flatMap((each) => holderNames(name, each)),
    ...loopDevices(names),
    ...names.filter(isSwap).map(() => "swap"),
  ];
}

/** The kernel does not list loop devices as holders: they open the node as programs do. */
function loopDevices(names: readonly string[]): string[] {
  const loops = attributeNames("/sys/block").filter((each) => /^loop\d+$/.test(each));
  return loops
    .filter((loop) => {
      const file = readAttribute(`/sys/block/${loop}/loop/backing_file`) ?? "";
      return names.some((each) => file === `/dev/${each}` || file === `/dev/${each} (deleted)`);
    })
    .map((loop) => `/dev/${loop}`);
}

/**
 * Where a disk and its partitions are mounted, as this mount namespace sees it: proc_pid_mountinfo(5). A mount can
 * outlast its node.
 * @param mounts those of a process in another namespace.
 */
export function mountsOf(name: string, mounts = "/proc/self/mountinfo"): string[] {
  const names = [name, ...partitionNames(name)];
  const devices = new Set(names.flatMap((each) => readAttribute(`/sys/class/block/${each}/dev`) ?? []));
  const node = new RegExp(`^/dev/${name}(p\\d+)?$`);
  const points: string[] = [];
  for (const line of readAttribute(mounts)?.split("\n") ?? []) {
    const [head, tail] = line.split(" - ");
    const fields = head?.split(" ") ?? [];
    // btrfs shows a device number of its own, but the source is still the node.
    const source = tail?.split(" ")[1] ?? "";
    if (devices.has(fields[2] ?? "") || node.test(source)) points.push(unescapeOctal(fields[4] ?? ""));
  }
  return [...new Set(points)];
}

function isSwap(name: string): boolean {
  const lines = readAttribute("/proc/swaps")?.split("\n") ?? [];
  return lines.some((line) => line.startsWith(`/dev/${name} `) || line.startsWith(`/dev/${name}\t`));
}

/** The process of a thread; undefined when it has ended. */
export function processOf(thread: number): number | undefined {
  const status = readAttribute(`/proc/${thread}/status`) ?? "";
  const group = /^Tgid:\s*(\d+)$/m.exec(status)?.[1];
  return group === undefined ? undefined : Number(group);
}

export function commandOf(pid: number): string | undefined {
  const words = readAttribute(`/proc/${pid}/cmdline`)?.split("\0");
  return words?.join(" ").trim() || undefined;
}
