/** What a step does to a device in use. */
import { existsSync, mkdirSync, readFileSync, renameSync, rmdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { readJournal } from "./client/journal.ts";
import type { Act, Step } from "./plan.ts";
import { Program, runs, until } from "./process.ts";
import { BALLAST } from "./small-disk.ts";
import { BINARY, type Stage } from "./stage.ts";

export const CGROUP = "/sys/fs/cgroup/torture";
const RUDE = join(import.meta.dir, "rude.ts");
const KILLED = 128 + 9;

export interface Scene {
  readonly step: Step;
  readonly stage: Stage;
  readonly load: Program;
}

export interface ActRule {
  /** The exit statuses that are right, if the act ends the server. */
  readonly statuses: (step: Step) => readonly number[] | undefined;
  /** Whether users may see errors although the device goes on. */
  readonly mayFail: boolean;
  /** Whether some blocks stay unreadable as long as the server runs. */
  readonly losesBlocks?: boolean;
  readonly run: (scene: Scene) => Promise<void> | void;
}

/** The device goes on as if nothing had happened. */
const GOES_ON = { statuses: () => undefined, mayFail: false } as const;
/** Requests fail for a while. */
const FAILS = { statuses: () => undefined, mayFail: true } as const;
const ends = (...statuses: readonly number[]) => ({ statuses: () => statuses, mayFail: true });

export const ACT_RULES: Readonly<Record<Act, ActRule>> = {
  calm: { ...GOES_ON, run: () => undefined },
  delay: { ...GOES_ON, run: () => undefined },
  kill: { ...ends(KILLED), run: ({ stage }) => stage.server.signal("SIGKILL") },
  stop: { ...ends(0), run: ({ stage, step }) => stage.server.signal(step.signal) },
  // 0 if the first signal had done its work, 1 if the second one cut it short.
  "stop-twice": { ...ends(0, 1), run: ({ stage, step }) => stopTwice(stage, step) },
  disconnect: {
    ...ends(0),
    run: ({ stage }) => runs(stage.log("disconnect"), BINARY, "disconnect", stage.path),
  },
  freeze: { ...GOES_ON, run: ({ stage, step }) => freeze(stage.server, step.pauseMs) },
  error: { ...FAILS, run: failForAWhile },
  full: {
    ...FAILS,
    run: async (scene) => {
      await untilFailed(scene);
      rmSync(BALLAST);
    },
  },
  // Writes without room were refused, so nothing is left to write at the end; but a flush may fail.
  "full-stop": {
    ...ends(0, 1),
    run: async (scene) => {
      await untilFailed(scene);
      scene.stage.server.signal(scene.step.signal);
      await scene.stage.server.ended();
      rmSync(BALLAST);
    },
  },
  // The range of a request that the device never answers stays locked.
  hang: { ...FAILS, losesBlocks: true, run: failForAWhile },
  "hang-stop": {
    ...ends(0, 1),
    run: async ({ stage, step }) => {
      writeFileSync(stage.trigger, "");
      await Bun.sleep(step.pauseMs);
      await stopTwice(stage, step);
      await stage.server.ended();
      rmSync(stage.trigger);
    },
  },
  reload: { ...GOES_ON, run: reload },
  recover: { ...GOES_ON, run: recover },
  clients: {
    ...GOES_ON,
    run: async ({ stage, step, load }) => {
      const rude = new Program([process.execPath, RUDE, stage.path, String(step.seed)], stage.log("rude"));
      await stage.loadEnded(load);
      rude.signal("SIGKILL");
      await rude.ended();
    },
  },
};

async function stopTwice({ server }: Stage, { signal, pauseMs }: Step): Promise<void> {
  server.signal(signal);
  await Bun.sleep(pauseMs);
  server.signal(signal === "SIGTERM" ? "SIGINT" : "SIGTERM");
}

async function freeze(server: Program, pauseMs: number): Promise<void> {
  mkdirSync(CGROUP, { recursive: true });
  writeFileSync(join(CGROUP, "cgroup.procs"), String(server.pid));
  const isFrozen = (): boolean => readFileSync(join(CGROUP, "cgroup.events"), "utf8").includes("frozen 1");
  writeFileSync(join(CGROUP, "cgroup.freeze"), "1");
  await until(`${server.name} is frozen`, isFrozen);
  await Bun.sleep(pauseMs);
  writeFileSync(join(CGROUP, "cgroup.freeze"), "0");
}

/** Removes the cgroup of a freeze, once its process has ended. */
export function removeCgroup(): void {
  if (existsSync(CGROUP)) rmdirSync(CGROUP);
}

async function failForAWhile(scene: Scene): Promise<void> {
  writeFileSync(scene.stage.trigger, "");
  await untilFailed(scene);
  await Bun.sleep(scene.step.pauseMs);
  rmSync(scene.stage.trigger);
}

function untilFailed({ stage, load }: Scene): Promise<void> {
  const hasFailed = (): boolean => readJournal(stage.journal).failed > 0;
  return until("a request fails", () => !load.isRunning || hasFailed());
}

/** Saves the module as an editor does: a new file replaces the old one. */
async function reload({ stage, step }: Scene): Promise<void> {
  for (let time = 1; time <= step.times; time += 1) {
    rmSync(stage.mark, { force: true });
    writeFileSync(`${stage.module}.new`, `${readFileSync(stage.module, "utf8")}// ${time}\n`);
    renameSync(`${stage.module}.new`, stage.module);
    await until("the module takes over", () => existsSync(stage.mark) || !stage.server.isRunning);
  }
}

async function recover({ stage, step }: Scene): Promise<void> {
  for (let time = 1; time <= step.times; time += 1) {
    stage.server.signal("SIGKILL");
    await stage.server.endsWith([KILLED]);
    await Bun.sleep(step.pauseMs);
    await stage.recover();
    await Bun.sleep(step.pauseMs);
  }
}
