/**
 * The transports that put a device on a node of this system. Every kernel test runs on each of them, with the same
 * cases and the same expectations; where they really differ, the difference stands here, with its reason.
 */
import { afterEach, beforeEach, describe } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { errno } from "tsbuse";
import { endServers, startWith } from "./server.ts";
import { sh, until } from "./shell.ts";

export interface NodeTransport {
  readonly name: "nbd" | "ublk" | "nbd by ioctl";
  /** What asks for it, beside the target. */
  readonly words: readonly string[];
  /** `/dev/nbd`: the number follows. */
  readonly prefix: string;
  /** The target that leaves the number to tsbuse. */
  readonly any: string;
  /** KiB of the longest request that the node takes: what `max_sectors_kb` can be set to. */
  readonly requestKib: number;
  /**
   * Errors that a device's user sees as the device named them; all others are EIO. The kernel's NBD client makes EIO
   * of everything, ublk keeps those that the block layer has a status for.
   */
  readonly errorsKept: readonly number[];
  /** Whether the node is there, with size 0, while nothing is attached: the NBD driver has a fixed number of them. */
  readonly nodeStays: boolean;
  /**
   * Whether a server that was stopped and continued goes on. A stop signal wakes the thread that sits in NBD_DO_IT, which
   * ends the device; no thread does so by netlink, and one of ublk goes back to its ring.
   */
  readonly outlivesStop: boolean;
  /** What a start on the first node says when its server was killed and a device mapper holds on to it. */
  readonly heldByMapper: RegExp;
  /** What is in the node's directory in /sys/block while it is attached; "" is the directory itself. */
  readonly attachedMark: string;
}

const NBD: NodeTransport = {
  name: "nbd",
  words: [],
  prefix: "/dev/nbd",
  any: "nbd",
  requestKib: 32_768,
  errorsKept: [],
  nodeStays: true,
  outlivesStop: true,
  heldByMapper: /^tsbuse: \/dev\/nbd0 is held by \/dev\/dm-\d+: release it there first\n$/,
  attachedMark: "pid",
};

export const TRANSPORTS: readonly NodeTransport[] = [
  NBD,
  {
    name: "ublk",
    words: [],
    prefix: "/dev/ublkb",
    any: "ublk",
    requestKib: 1024,
    errorsKept: [errno.ENOSPC, errno.EOPNOTSUPP, errno.ENOMEM],
    nodeStays: false,
    outlivesStop: true,
    // The driver takes the node away with its server: there is no telling what has had it open.
    heldByMapper:
      /^tsbuse: \/dev\/ublkb0 is gone, but its number is taken until its last user closes it: .*\n$/,
    attachedMark: "",
  },
];

/** With the way that is left where there is no netlink: for what attaching, and its end, are the subject of. */
export const ALL_TRANSPORTS: readonly NodeTransport[] = [
  ...TRANSPORTS,
  { ...NBD, name: "nbd by ioctl", words: ["--attach", "ioctl"], outlivesStop: false },
];

/** One node of a transport, as the tests of it name it. */
export class TestNode {
  /** `/dev/nbd0`: where the device is, and the target to put it there. */
  readonly path: string;
  /** `nbd0`: in /sys/block. */
  readonly name: string;

  constructor(
    readonly transport: NodeTransport,
    index: number,
  ) {
    this.path = `${transport.prefix}${index}`;
    this.name = this.path.slice("/dev/".length);
  }

  /** Whether somebody serves it, as far as the driver knows. */
  get isAttached(): boolean {
    return existsSync(`/sys/block/${this.name}/${this.transport.attachedMark}`);
  }

  /** Bytes; 0 while nothing is attached. */
  get size(): number {
    const file = `/sys/block/${this.name}/size`;
    return existsSync(file) ? Number(readFileSync(file, "utf8")) * 512 : 0;
  }

  /** `ro`: what sysfs says of it. */
  attribute(name: string): string {
    return readFileSync(`/sys/block/${this.name}/${name}`, "utf8").trim();
  }

  /** `rotational`: an attribute of its queue. */
  queue(attribute: string): string {
    return this.attribute(`queue/${attribute}`);
  }

  /** For afterEach. */
  async untilFree(): Promise<void> {
    await until(`${this.path} is free`, () => !this.isAttached);
  }
}

/** What the user of a device sees when the device answers with `number`. */
export function errorSeen({ errorsKept }: NodeTransport, number: number): number {
  return errorsKept.includes(number) ? number : errno.EIO;
}

/** For each transport, tests on its first two nodes. After each of them nothing is attached, and /mnt is empty. */
export function describeTransports(
  tests: (transport: NodeTransport, disk: TestNode, neighbour: TestNode) => void,
  transports = TRANSPORTS,
): void {
  describe.each(transports)("$name", (transport) => {
    beforeEach(() => startWith(transport.words));
    const [disk, neighbour] = [new TestNode(transport, 0), new TestNode(transport, 1)];
    tests(transport, disk, neighbour);
    afterEach(async () => {
      startWith([]);
      // Once for what is on a node, and once more for what a server has kept busy.
      const unmount = "for at in /mnt/*; do umount -q $at || true; done";
      await sh(unmount);
      await endServers();
      await sh(unmount);
      await disk.untilFree();
      await neighbour.untilFree();
      await sh("rm -rf /mnt/*");
    });
  });
}
