/** Other projects' NBD servers and ours, serving a file. They are killed and started again while in use. */
import { existsSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { until } from "./shell.ts";

/** The command of each server. The directory is for its socket and files. */
const COMMANDS = {
  nbdkit: (image, directory) => ["nbdkit", "-f", "-U", `${directory}/disk.sock`, "file", image],
  "qemu-nbd": (image, directory) =>
    // It allows a client several connections only if several clients may share it.
    ["qemu-nbd", "-t", "-e", "8", "-k", `${directory}/disk.sock`, "-f", "raw", "--discard=unmap", image],
  "nbd-server": (image, directory) => {
    const configuration = join(directory, "nbd-server.conf");
    const [generic, disk] = [
      `port = ${PORT}\nlistenaddr = 127.0.0.1`,
      "flush = true\nfua = true\ntrim = true",
    ];
    writeFileSync(configuration, `[generic]\n${generic}\n[disk]\nexportname = ${image}\n${disk}\n`);
    return ["nbd-server", "-C", configuration, "-p", join(directory, PID_FILE)];
  },
  tsbuse: (image, directory) => [
    ...(TSBUSE.length > 0 ? TSBUSE : [process.execPath, join(import.meta.dir, "../../src/main.ts")]),
    "loop",
    image,
    `unix:${directory}/disk.sock`,
  ],
} as const satisfies Record<string, (image: string, directory: string) => readonly string[]>;

/** The command of our program: the binary, as in the kernel tests; empty for running it from its sources. */
const TSBUSE: string[] = [];
const PORT = 21_809;
/** The PID file of nbd-server, which goes to the background by itself. */
const PID_FILE = "nbd-server.pid";

export type ServerName = keyof typeof COMMANDS;

export const SERVER_NAMES: readonly ServerName[] = ["nbdkit", "qemu-nbd", "nbd-server", "tsbuse"];

export class RemoteServer implements AsyncDisposable {
  readonly uri: string;
  readonly image: string;
  readonly #directory: string;
  readonly #command: readonly string[];
  /** The process group. */
  #group: number | undefined;

  /** Makes the image in the directory. */
  constructor(
    readonly name: ServerName,
    directory: string,
    size: number,
  ) {
    this.#directory = directory;
    this.image = join(directory, "disk.img");
    writeFileSync(this.image, "");
    this.resize(size);
    this.#command = COMMANDS[name](this.image, directory);
    this.uri =
      name === "nbd-server" ? `nbd://127.0.0.1:${PORT}/disk` : `nbd+unix:///?socket=${directory}/disk.sock`;
  }

  resize(size: number): void {
    truncateSync(this.image, size);
  }

  /** @param more further words for the command. */
  async start(): Promise<void> {
    await until(`${this.name} runs`, async () => {
      // A server ends at once if the port is still in use by the previous one.
      if (this.#group === undefined || !hasProcesses(this.#group)) await this.#spawn();
      const asked = Bun.spawn(["nbdinfo", "--size", this.uri], { stdio: ["ignore", "ignore", "ignore"] });
      return (await asked.exited) === 0;
    });
  }

  /** Kills all of its processes at once: nbd-server has one for each client. */
  async kill(): Promise<void> {
    const group = this.#group;
    this.#group = undefined;
    if (group === undefined || !hasProcesses(group)) return;
    process.kill(-group, "SIGKILL");
    await until(`${this.name} is gone`, () => !hasProcesses(group));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }

  async #spawn(): Promise<void> {
    for (const name of ["disk.sock", PID_FILE]) rmSync(join(this.#directory, name), { force: true });
    const child = Bun.spawn([...this.#command], { stdio: ["ignore", "ignore", "ignore"], detached: true });
    this.#group = child.pid;
    if (this.name !== "nbd-server") return;
    await child.exited;
    const file = join(this.#directory, PID_FILE);
    const pid = (): number => (existsSync(file) ? Number(readFileSync(file, "utf8")) : 0);
    await until("its PID file is written", () => pid() > 0);
    this.#group = pid();
  }
}

function hasProcesses(group: number): boolean {
  try {
    process.kill(-group, 0);
    return true;
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ESRCH") return false;
    throw error;
  }
}

/** Runs our servers from the compiled binary. */
export function useBinary(path: string): void {
  TSBUSE.splice(0, TSBUSE.length, path);
}
