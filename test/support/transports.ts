/**
 * The transports that attach a device to a node of this system. Every kernel test runs on each of them, with the same
 * cases and expectations. Where they really differ, this file states the difference and its reason.
 */
import { afterEach, beforeEach, describe } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { errno } from "tsbuse";
import { endServers, startWith } from "./server.ts";
import { sh, until } from "./shell.ts";

export interface NodeTransport {
  readonly name: "nbd" | "ublk" | "nbd by ioctl";
  /** Words that select it, apart from the target. */
  readonly words: readonly string[];
  /** `/dev/nbd`, without the number. */
  readonly prefix: string;
  /** The target that leaves the number to tsbuse. */
  readonly any: string;
  /** The longest request that the node takes, in KiB: the maximum of `max_sectors_kb`. */
  readonly requestKib: number;
  /**
   * Errors that a device's users see unchanged; all others become EIO. The kernel's NBD client turns everything into
   * EIO, ublk keeps those for which the block layer has a status.
   */
  readonly errorsKept: readonly number[];
  /** Whether the node exists, with size 0, while nothing is attached: the NBD driver has a fixed number of nodes. */
  readonly nodeStays: boolean;
  /**
   * Whether a server survives being stopped and continued. A stop signal wakes the thread in NBD_DO_IT, which ends the
   * device. With netlink there is no such thread, and with ublk the thread returns to its ring.
   */
  readonly outlivesStop: boolean;
  /** The message of a start on the first node if its server was killed and a device mapper still uses it. */
  readonly heldByMapper: RegExp;
  /** The file in the node's directory in /sys/block that exists while it is attached; "" is the directory itself. */
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
    // The driver removes the node with its server, so nobody can tell what has it open.
    heldByMapper:
      /^tsbuse: \/dev\/ublkb0 is gone, but its number is taken until its last user closes it: .*\n$/,
    attachedMark: "",
  },
];

/** Includes NBD without netlink, for tests of attaching and detaching. */
export const ALL_TRANSPORTS: readonly NodeTransport[] = [
  ...TRANSPORTS,
  { ...NBD, name: "nbd by ioctl", words: ["--attach", "ioctl"], outlivesStop: false },
];

/** One node of a transport. */
export class TestNode {
  /** `/dev/nbd0`: the path of the device, and the target that puts it there. */
  readonly path: string;
  /** `nbd0`: the name in /sys/block. */
  readonly name: string;

  constructor(
    readonly transport: NodeTransport,
    index: number,
  ) {
    this.path = `${transport.prefix}${index}`;
    this.name = this.path.slice("/dev/".length);
  }

  /** Whether the driver has a server for it. */
  get isAttached(): boolean {
    return existsSync(`/sys/block/${this.name}/${this.transport.attachedMark}`);
  }

  /** The size in bytes; 0 while nothing is attached. */
  get size(): number {
    const file = `/sys/block/${this.name}/size`;
    return existsSync(file) ? Number(readFileSync(file, "utf8")) * 512 : 0;
  }

  /** An attribute in sysfs, such as `ro`. */
  attribute(name: string): string {
    return readFileSync(`/sys/block/${this.name}/${name}`, "utf8").trim();
  }

  /** An attribute of its queue, such as `rotational`. */
  queue(attribute: string): string {
    return this.attribute(`queue/${attribute}`);
  }

  /** For afterEach. */
  async untilFree(): Promise<void> {
    await until(`${this.path} is free`, () => !this.isAttached);
  }
}

/** The error that a device's user sees when the device answers with `number`. */
export function errorSeen({ errorsKept }: NodeTransport, number: number): number {
  return errorsKept.includes(number) ? number : errno.EIO;
}

/** For each transport, tests on its first two nodes. After each test nothing is attached, and /mnt is empty. */
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
      // Once for mounts on nodes, and once more for those that a server kept busy.
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
