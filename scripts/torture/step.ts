/** One step: makes a device, uses it, tortures it and checks it. */
import { rmSync, statSync } from "node:fs";
import { ACT_RULES, removeCgroup } from "./acts.ts";
import { readJournal } from "./client/journal.ts";
import type { Planted } from "./options.ts";
import type { Step } from "./plan.ts";
import { Fault, type Program, until, untilDone } from "./process.ts";
import { mountSmallDisk, unmountSmallDisk } from "./small-disk.ts";
import { BINARY, Stage, WORK } from "./stage.ts";
import { completedBy, devices, growthOf, mountsBelow, processesOf, type Use, useOf } from "./watch.ts";

const RECORD_BYTES = 12;
/**
 * How much more a server may use after its work than in the middle of it. The runtime starts threads of its own at any
 * time. A leak with each request, or with each tenth, is far above these.
 */
const GROWTH: Use = { descriptors: 16, threads: 16, memory: 256 * 2 ** 20 };
/** The wait, in milliseconds, for a load whose progress cannot be seen. */
const UNSEEN_MS = 1000;

/** @param logs the directory for the programs' output. @throws Fault */
export async function runStep(step: Step, logs: string, planted: Planted | undefined): Promise<void> {
  const stage = new Stage(step, logs, planted);
  const smallDisk = step.act === "full" || step.act === "full-stop";
  stage.prepare();
  if (smallDisk) await mountSmallDisk(step, stage.log("store"));
  stage.makeFile();
  await stage.start();
  await tortured(stage);
  stage.checkWords();
  await startedAgain(stage);
  await checkNothingLeft();
  if (smallDisk) await unmountSmallDisk(stage.log("store"));
  removeCgroup();
  rmSync(WORK, { recursive: true });
}

/** Uses the device, performs the act of the step, and waits for the end of the server. */
async function tortured(stage: Stage): Promise<void> {
  const { step } = stage;
  const rule = ACT_RULES[step.act];
  const statuses = rule.statuses(step);
  const load = await stage.startLoad(statuses !== undefined);
  await untilAt(stage, load);
  const before = useOf(stage.server.pid);
  const { pid } = stage.server;
  await rule.run({ step, stage, load });
  if (statuses !== undefined) {
    await stage.server.endsWith(statuses);
    checkLoad(stage, load, await stage.loadEnded(load));
    if (step.load === "files") await stage.unmount();
    return;
  }
  const status = await stage.loadEnded(load);
  checkLoad(stage, load, status);
  if (status !== 0) throw new Fault(`the load failed: ${load.complaint}`);
  if (!rule.mayFail && readJournal(stage.journal).failed > 0)
    throw new Fault(`a request failed: ${load.complaint}`);
  if (step.load === "files") await stage.unmount();
  if (rule.losesBlocks !== true) await stage.verify();
  if (stage.server.pid === pid) await checkGrowth(pid, before);
  stage.server.signal(step.signal);
  await stage.server.endsWith([0]);
}

/** Waits until the load has reached the point at which the act begins. */
async function untilAt(stage: Stage, load: Program): Promise<void> {
  const { step, path, journal } = stage;
  const wanted = step.at * step.operations;
  if (step.load === "fio" && step.transport === "server") return void (await Bun.sleep(step.at * UNSEEN_MS));
  const done = (): number =>
    step.load === "fio" ? completedBy(path) : statSync(journal).size / RECORD_BYTES;
  await untilDone(`${wanted} operations are done`, () => done() >= wanted || !load.isRunning, done);
}

/** Looks for wrong data only: other failures of a load may be intended. @throws Fault */
function checkLoad({ step }: Stage, load: Program, status: number): void {
  const isWrong =
    step.load === "fio" ? /verify: bad|verify failed|bad (?:magic )?header/.test(load.output) : status !== 0;
  if (isWrong) throw new Fault(`wrong data: ${load.complaint}`);
}

/** Checks that the next process has everything acknowledged, and that a killed server left nothing in its way. */
async function startedAgain(stage: Stage): Promise<void> {
  await stage.start();
  if (stage.isKept) await stage.verify();
  stage.server.signal("SIGTERM");
  await stage.server.endsWith([0]);
  stage.checkWords();
  stage.checkSocket();
}

async function checkGrowth(pid: number, before: Use): Promise<void> {
  const grown = (): string | undefined => growthOf(before, useOf(pid), GROWTH);
  // The server may notice the end of a client a little later.
  const deadline = performance.now() + 10_000;
  while (grown() !== undefined && performance.now() < deadline) await Bun.sleep(100);
  const fault = grown();
  if (fault !== undefined) throw new Fault(`the server has grown: ${fault}`);
}

async function checkNothingLeft(): Promise<void> {
  await until("no process of tsbuse is left", () => processesOf(BINARY).length === 0);
  await until(`nothing is attached: ${devices().join(", ")}`, () => devices().length === 0);
  const mounts = mountsBelow(WORK).filter((point) => !point.endsWith("/store"));
  if (mounts.length > 0) throw new Fault(`still mounted: ${mounts.join(", ")}`);
}
