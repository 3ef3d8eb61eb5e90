/**
 * The processes and files of one virtual machine.
 */
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm, truncate, writeFile } from "node:fs/promises";
import type { Subprocess } from "bun";
import { lastLines, troubleLines } from "./guest-output.ts";
import { type GuestPort, openGuestPort } from "./guest-port.ts";
import { type Job, writeJob } from "./job.ts";
import type { Kernel } from "./kernel.ts";
import { type Hardware, machineFiles, qemuCommand, virtiofsdCommand } from "./qemu.ts";

/** What to start. */
export interface MachinePlan {
  readonly kernel: Kernel;
  /** The program that serves the root directory. */
  readonly virtiofsd: string;
  readonly hardware: Hardware;
  readonly job: Job;
}

/** A running machine. Disposing of it ends it and removes its files. */
export interface Machine extends AsyncDisposable {
  readonly stdout: GuestPort;
  readonly stderr: GuestPort;
  readonly reports: GuestPort;
  /** The bytes with which the guest ends its output streams. */
  readonly trailer: Buffer;
  /** Settles with the reason when the machine ends by itself. */
  readonly ended: Promise<string>;
  /** The end of the kernel's console, from the first report of trouble on. */
  consoleTail(): Promise<readonly string[]>;
}

/**
 * The path of a Unix socket has at most 107 bytes, and a word on the kernel's command line no blanks. That rules out a
 * TMPDIR of the user's choice.
 */
const DIRECTORY_PREFIX = "/tmp/tsbuse-vm-";

const CONSOLE_LINES_MAX = 200;

/** How long virtiofsd may take to listen. */
const LISTEN_MS_MAX = 10_000;

/** If QEMU ended first, and virtiofsd because of that, we see QEMU's end within this time. */
const QEMU_END_MS_MAX = 1000;

/** Starts a machine. Its guest finds the job's files, and us listening at its ports. */
export async function startMachine(plan: MachinePlan): Promise<Machine> {
  await using starting = new AsyncDisposableStack();
  const directory = starting.adopt(await mkdtemp(DIRECTORY_PREFIX), (path) => rm(path, { recursive: true }));
  const files = machineFiles(directory);
  const trailer = Buffer.from(`\0${crypto.randomUUID()}`);
  for (const [index, mib] of plan.hardware.disksMib.entries()) {
    await writeFile(files.disk(index), "");
    await truncate(files.disk(index), mib * 2 ** 20);
  }
  await writeJob(files.job, plan.job, plan.kernel, trailer);

  const stdout = starting.use(await openGuestPort(files.portSocket("stdout")));
  const stderr = starting.use(await openGuestPort(files.portSocket("stderr")));
  const reports = starting.use(await openGuestPort(files.portSocket("reports")));

  const virtiofsd = starting.adopt(
    spawn(virtiofsdCommand(plan.virtiofsd, directory), files.virtiofsdLog),
    kill,
  );
  await waitForSocket(files.rootSocket, virtiofsd);
  const qemu = starting.adopt(spawn(qemuCommand(directory, plan.kernel, plan.hardware), files.qemuLog), kill);

  const resources = starting.move();
  return {
    stdout,
    stderr,
    reports,
    trailer,
    ended: Promise.race([
      qemu.exited.then(
        async () => (await panicMessage(files.console)) ?? explainEnd("qemu", qemu, files.qemuLog),
      ),
      // It also ends because QEMU ends, and then QEMU knows the reason.
      virtiofsd.exited.then(async () => {
        await Bun.sleep(QEMU_END_MS_MAX);
        return explainEnd("virtiofsd", virtiofsd, files.virtiofsdLog);
      }),
    ]),
    consoleTail: async () => troubleLines(await readIfThere(files.console), CONSOLE_LINES_MAX),
    [Symbol.asyncDispose]: () => resources.disposeAsync(),
  };
}

/** Starts a process that dies with us, even if we are killed and cannot end it. */
function spawn(command: readonly string[], log: string): Subprocess {
  return Bun.spawn(["setpriv", "--pdeathsig", "KILL", ...command], {
    stdio: ["ignore", Bun.file(log), Bun.file(log)],
  });
}

async function kill(child: Subprocess): Promise<void> {
  child.kill("SIGKILL");
  await child.exited;
}

/** Returns when `server` listens or has ended: QEMU then reports that nobody listens. */
async function waitForSocket(path: string, server: Subprocess): Promise<void> {
  const deadline = Date.now() + LISTEN_MS_MAX;
  while (!existsSync(path) && server.exitCode === null && Date.now() < deadline) await Bun.sleep(5);
}

/** Why a process ended too early: a line of its log, if it wrote one. */
async function explainEnd(name: string, child: Subprocess, log: string): Promise<string> {
  const [complaint] = await tailOf(log, 1);
  const how = child.signalCode ?? `exit status ${child.exitCode}`;
  return complaint === undefined ? `${name} ended with ${how}` : `${name} ended with ${how}: ${complaint}`;
}

/** The reason why the guest's kernel died, if it printed one. */
async function panicMessage(console: string): Promise<string | undefined> {
  return /Kernel panic - .*/.exec((await readIfThere(console)).replaceAll("\r", ""))?.[0];
}

async function tailOf(path: string, count: number): Promise<readonly string[]> {
  return lastLines(await readIfThere(path), count);
}

/** A machine that ended early may lack some of the files. */
async function readIfThere(path: string): Promise<string> {
  return readFile(path, "utf8").catch(() => "");
}
