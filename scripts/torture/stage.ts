/** The device of a step: its files, the command that serves it, its server, and its users. */
import {
  closeSync,
  copyFileSync,
  existsSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  rmSync,
  statSync,
} from "node:fs";
import { join } from "node:path";
import type { ClientOrder } from "./client/main.ts";
import type { Planted } from "./options.ts";
import { DEVICE_BYTES, type Step } from "./plan.ts";
import { Fault, Program, runs, until, untilDone } from "./process.ts";
import { ticksOf } from "./watch.ts";

export const BINARY = join(import.meta.dir, "../../dist/tsbuse");
const BUN = process.execPath;
const CLIENT = join(import.meta.dir, "client/main.ts");
const DISK = join(import.meta.dir, "disk.ts");

/** The directory for everything that a step makes, except its logs. */
export const WORK = "/mnt/torture";
/** The directory of the files that back the device. */
export const STORE = join(WORK, "store");
/** Where the file system on the device is mounted. */
export const MOUNT_POINT = join(WORK, "files");
/** The number of blocks in use: few, so that each is written several times. */
const BLOCKS_MAX = 2048;
const FILES = 64;
/** The end of the device, left to clients that misbehave. */
const SPARE_BYTES = 2 ** 20;
/** Every how many writes a planted fault occurs. */
const LIE_EVERY = 1000;
const LEAK_EVERY = 10;

export class Stage {
  /** The file that backs the device; with an overlay, only the base. */
  readonly file = join(STORE, "disk.img");
  /** While it exists, the error layer fails requests, and the module hangs. */
  readonly trigger = join(WORK, "trigger");
  /** Written by a module that takes over. */
  readonly mark = join(WORK, "mark");
  readonly module = join(WORK, "disk.ts");
  readonly journal = join(WORK, "journal");
  /** A node, or the URI of a server; known once the server has started. */
  path = "";
  #server: Program | undefined;
  #verifications = 0;

  constructor(
    readonly step: Step,
    readonly logs: string,
    readonly planted: Planted | undefined,
  ) {}

  get server(): Program {
    if (this.#server === undefined) throw new Error("no server was started");
    return this.#server;
  }

  get target(): string {
    const { transport, isTcp } = this.step;
    if (transport !== "server") return transport === "nbd" ? "/dev/nbd0" : "/dev/ublkb0";
    return isTcp ? "tcp:127.0.0.1:0" : `unix:${this.socket}`;
  }

  get socket(): string {
    return join(WORK, "disk.sock");
  }

  /** Whether the data outlives the server's process. */
  get isKept(): boolean {
    return this.step.backing !== "ramdisk";
  }

  log(name: string): string {
    return join(this.logs, `step-${this.step.number}-${name}.log`);
  }

  /** Makes the directories, the module and an empty journal. */
  prepare(): void {
    rmSync(WORK, { recursive: true, force: true });
    for (const directory of [STORE, MOUNT_POINT]) mkdirSync(directory, { recursive: true });
    copyFileSync(DISK, this.module);
    closeSync(openSync(this.journal, "a"));
  }

  /** Makes the file that backs the device; its file system must be mounted. */
  makeFile(): void {
    const fd = openSync(this.file, "w");
    ftruncateSync(fd, DEVICE_BYTES);
    closeSync(fd);
  }

  /** The arguments that make the device: for `tsbuse`, and for `tsbuse recover TARGET`. */
  words(target: readonly string[]): string[] {
    const { backing, act, queues } = this.step;
    const options = this.#layers();
    if (queues > 1) options.push("--queues", String(queues));
    if (act === "hang") options.push("--request-timeout", "1");
    if (act === "recover" && target.length > 0) options.push("--recover");
    switch (backing) {
      case "ramdisk":
        return ["ramdisk", String(DEVICE_BYTES), ...target, ...options];
      case "loop":
        return ["loop", this.file, ...target, ...options];
      case "direct":
        return ["loop", this.file, ...target, "--direct", ...options];
      case "cow": {
        const overlay = join(STORE, "changes.cow");
        return ["loop", this.file, ...target, "--layer", `cow:file=${overlay}`, ...options];
      }
      case "module":
      case "promises":
        if (act === "reload") options.push("--watch");
        return ["run", this.module, ...target, ...options, "--", ...this.#moduleOptions()];
    }
  }

  #layers(): string[] {
    const { act, seed } = this.step;
    if (act === "delay") return ["--layer", "delay:write=2,read=1,flush=10"];
    if (act === "error")
      return ["--layer", `error:rate=10%,errno=ENOSPC,trigger=${this.trigger},seed=${seed}`];
    return [];
  }

  #moduleOptions(): string[] {
    const { act, backing } = this.step;
    const options = [`file=${this.file}`];
    if (backing === "promises") options.push("promises=yes");
    if (act === "hang" || act === "hang-stop") options.push(`hang=${this.trigger}`);
    if (act === "reload") options.push(`mark=${this.mark}`);
    if (this.planted === "lie") options.push(`lie=${LIE_EVERY}`);
    if (this.planted === "leak") options.push(`leak=${LEAK_EVERY}`);
    return options;
  }

  /** Starts a server, and waits until the device can be used. */
  start(): Promise<void> {
    return this.#launch([BINARY, ...this.words([this.target])]);
  }

  recover(): Promise<void> {
    return this.#launch([BINARY, "recover", this.target, ...this.words([])]);
  }

  async #launch(command: readonly string[]): Promise<void> {
    const server = new Program(command, this.log("server"), true);
    this.#server = server;
    let line = "";
    void read(server.stdout, (text) => (line += text));
    await until(`${server.name} is ready`, () => line.includes("\n") || !server.isRunning);
    if (!line.includes("\n")) throw new Fault(`${server.name} did not start: ${server.complaint}`);
    this.path = line.split("\n")[0] ?? "";
  }

  /** Starts the user of the device. */
  async startLoad(givesUp: boolean): Promise<Program> {
    const { load, operations } = this.step;
    if (load === "fio") return new Program(this.#fio(), this.log("fio"));
    if (load === "files") {
      await runs(this.log("files"), "mkfs.ext4", "-q", "-F", this.path);
      await this.mount();
    }
    return this.#client({ operations, givesUp });
  }

  mount(): Promise<void> {
    return runs(this.log("files"), "mount", this.path, MOUNT_POINT);
  }

  unmount(): Promise<void> {
    return runs(this.log("files"), "umount", MOUNT_POINT);
  }

  /** Waits for the end of a program that uses the device. @returns its exit status. @throws Fault if it hangs. */
  async loadEnded(load: Program): Promise<number> {
    const progress = (): number => statSync(this.journal).size + ticksOf(this.server.pid);
    await untilDone(`the end of ${load.name}`, () => !load.isRunning, progress);
    return load.ended();
  }

  /** Reads and checks every block that was ever written; the device must be idle. @throws Fault */
  async verify(): Promise<void> {
    if (this.step.load === "fio") return;
    const isMounted = this.step.load === "files";
    if (isMounted) await this.mount();
    this.#verifications += 1;
    const client = this.#client({ givesUp: true });
    if ((await this.loadEnded(client)) !== 0) throw new Fault(`wrong data: ${client.complaint}`);
    if (!isMounted) return;
    await this.unmount();
    await runs(this.log("files"), "fsck.ext4", "-fn", this.path);
  }

  #client(part: Pick<ClientOrder, "givesUp" | "operations">): Program {
    const { load, blockBytes, lanes, seed } = this.step;
    const blocks = load === "files" ? FILES : Math.min((DEVICE_BYTES - SPARE_BYTES) / blockBytes, BLOCKS_MAX);
    const order: ClientOrder = {
      target: load === "files" ? MOUNT_POINT : this.path,
      journal: this.journal,
      blocks,
      blockBytes,
      lanes,
      seed,
      ...part,
    };
    const name = part.operations === undefined ? `verify-${this.#verifications}` : "client";
    return new Program([BUN, CLIENT, JSON.stringify(order)], this.log(name));
  }

  #fio(): string[] {
    const { transport, lanes, operations, seed } = this.step;
    const where =
      transport === "server"
        ? ["--ioengine=nbd", `--uri=${this.path}`]
        : ["--ioengine=libaio", `--filename=${this.path}`, "--direct=1"];
    return [
      "fio",
      "--name=job",
      ...where,
      "--rw=randwrite",
      "--bs=4k",
      `--size=${operations * 4096}`,
      `--iodepth=${lanes}`,
      `--randseed=${seed}`,
      "--verify=crc32c",
      "--verify_fatal=1",
      "--verify_state_save=0",
    ];
  }

  /** Checks that the server printed no stack. @throws Fault */
  checkWords(): void {
    const trace = /^\s+at .*$|^.*\b(?:panic|Segmentation fault|AssertionError)\b.*$/m.exec(
      this.server.output,
    );
    if (trace !== null) throw new Fault(`the server said: ${trace[0].trim()}`);
  }

  /** Call it after the end of a server that was not killed. @throws Fault */
  checkSocket(): void {
    if (existsSync(this.socket)) throw new Fault(`${this.socket} was left behind`);
  }
}

async function read(stream: ReadableStream<Uint8Array>, got: (text: string) => void): Promise<void> {
  const decoder = new TextDecoder();
  for await (const chunk of stream) got(decoder.decode(chunk, { stream: true }));
}
