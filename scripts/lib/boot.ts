/**
 * Boots the virtual machine once and watches it until its command ends or something goes wrong.
 */
import { createInterface } from "node:readline";
import { Readable, type Writable } from "node:stream";
import { forwardOutput, type Tail } from "./guest-output.ts";
import type { GuestPort } from "./guest-port.ts";
import { type Machine, type MachinePlan, startMachine } from "./machine.ts";

/** What a boot needs besides the machine's plan. */
export interface BootRequest {
  readonly plan: MachinePlan;
  /** How long the guest may take until its command starts. */
  readonly startMs: number;
  readonly stdout: Writable;
  readonly stderr: Writable;
  /** Gets all output of the command. */
  readonly tail: Tail;
  /** Stops the machine. */
  readonly signal: AbortSignal;
}

/** How the command ended. */
export interface CommandExit {
  readonly status: number;
  /** The number of its processes that survived SIGKILL: they hang in a driver. */
  readonly unkillable: number;
}

/** How a boot ended, with the last lines of the kernel's console if it failed. */
export type Outcome =
  | ({ readonly kind: "exited"; readonly startedAfterMs: number; readonly ranForMs: number } & CommandExit)
  /** The command never started, so another boot does no harm. */
  | { readonly kind: "unstarted"; readonly reason: string; readonly console: readonly string[] }
  /** The guest ended, and its command with it. */
  | { readonly kind: "died"; readonly reason: string; readonly console: readonly string[] }
  /** The request's signal was aborted. */
  | { readonly kind: "stopped"; readonly console: readonly string[] };

/** What happened first. */
type Event =
  | { readonly kind: "exited"; readonly exit: CommandExit }
  | { readonly kind: "ended"; readonly reason: string }
  | { readonly kind: "late" }
  | { readonly kind: "stopped" };

/** How long output may take to arrive once no writer is left. */
const DRAIN_MS_MAX = 1000;

/** Boots a machine, runs its job, passes on the output, and cleans up. */
export async function boot(request: BootRequest): Promise<Outcome> {
  const begin = performance.now();
  await using machine = await startMachine(request.plan);
  let started: number | undefined;
  const exited = readReports(machine.reports, () => {
    started = performance.now();
  });
  const forwarded = forwardOutputs(machine, request);

  const event = await Promise.race<Event>([
    exited.then((exit) => ({ kind: "exited", exit })),
    machine.ended.then((reason) => ({ kind: "ended", reason })),
    after(request.startMs).then(() => (started === undefined ? { kind: "late" } : never())),
    aborted(request.signal).then(() => ({ kind: "stopped" })),
    // Rejects, and so ends the machine, if our own reader is gone. Complete output is no event.
    forwarded.then(() => never()),
  ]);

  switch (event.kind) {
    case "exited": {
      const end = performance.now();
      const start = started ?? begin;
      return (await drain(forwarded, event.exit, request.signal))
        ? { kind: "exited", ...event.exit, startedAfterMs: start - begin, ranForMs: end - start }
        : { kind: "stopped", console: await machine.consoleTail() };
    }
    case "ended":
      await Promise.race([forwarded, after(DRAIN_MS_MAX)]);
      return {
        kind: started === undefined ? "unstarted" : "died",
        reason: event.reason,
        console: await machine.consoleTail(),
      };
    case "late": {
      const reason = `the guest did not start the command within ${request.startMs / 1000} s`;
      return { kind: "unstarted", reason, console: await machine.consoleTail() };
    }
    case "stopped":
      return { kind: "stopped", console: await machine.consoleTail() };
  }
}

async function forwardOutputs(machine: Machine, request: BootRequest): Promise<void> {
  const { trailer, stdout, stderr } = machine;
  await Promise.all([
    forwardOutput(stdout.chunks(), request.stdout, trailer, request.tail),
    forwardOutput(stderr.chunks(), request.stderr, trailer, request.tail),
  ]);
}

/**
 * Talks with guest-init.sh, which starts the command only after we know that it is about to. Otherwise a guest that
 * dies right away would look like one that never started it. Never settles if the guest ends without reporting how its
 * command ended.
 */
async function readReports(port: GuestPort, onStarted: () => void): Promise<CommandExit> {
  for await (const line of createInterface({ input: Readable.from(port.chunks()) })) {
    const [word, status, unkillable] = line.split(" ");
    if (word === "ready") {
      onStarted();
      port.send("go\n");
    }
    if (word === "exited") return { status: Number(status), unkillable: Number(unkillable) };
  }
  return never();
}

/** Waits until all output has been passed on. Returns false if the signal was aborted first. */
async function drain(forwarded: Promise<void>, exit: CommandExit, signal: AbortSignal): Promise<boolean> {
  // A process that survives SIGKILL keeps its streams open for ever.
  const complete = exit.unkillable === 0 ? forwarded : Promise.race([forwarded, after(DRAIN_MS_MAX)]);
  return Promise.race([complete.then(() => true), aborted(signal).then(() => false)]);
}

/** Settles after a time, but does not keep the process alive. */
function after(ms: number): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  setTimeout(resolve, ms).unref();
  return promise;
}

function aborted(signal: AbortSignal): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  if (signal.aborted) resolve();
  signal.addEventListener("abort", () => resolve(), { once: true });
  return promise;
}

/** Never settles: in a race, one of the others wins. */
function never(): Promise<never> {
  return Promise.withResolvers<never>().promise;
}
