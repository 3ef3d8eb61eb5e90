/** `--watch`: reloads a module when one of its files has been saved, and lets its device take over. */
import type { BlockDevice } from "../device.ts";
import { messageOf } from "../errors.ts";
import { within } from "../serving/deadline.ts";
import { fileState } from "./file-state.ts";
import type { UserModule } from "./load.ts";
import type { GivenOptions } from "../values/option-table.ts";
import { displayPath } from "./place.ts";
import type { SwappableDevice } from "./swappable.ts";

/**
 * How often to look at the files, in milliseconds. Looking is cheap and works on every file system. It also works with
 * editors that write a new file and rename it, which a watch on the old file would miss.
 */
const INTERVAL_MS = 100;
/** How long stopping waits for a module that is being loaded, in milliseconds. */
const STOP_MS = 2000;

export interface WatchReport {
  readonly reloaded: (line: string) => void;
  readonly failed: (line: string) => void;
}

export class ModuleWatcher {
  readonly #module: UserModule;
  readonly #options: GivenOptions;
  readonly #device: SwappableDevice;
  readonly #report: WatchReport;
  readonly #timer: ReturnType<typeof setInterval>;
  /** The state of the module's files when they were last looked at. */
  #seen = "";
  #reloading: Promise<void> | undefined;
  #stopped = false;

  /** Watches from now on. The module has been loaded, and `device` holds what it made. */
  constructor(module: UserModule, options: GivenOptions, device: SwappableDevice, report: WatchReport) {
    this.#module = module;
    this.#options = options;
    this.#device = device;
    this.#report = report;
    this.#timer = setInterval(() => this.#look(), INTERVAL_MS);
  }

  /** Stops watching; done when no reload is in progress, except of a module that takes too long to load. */
  async stop(): Promise<void> {
    this.#stopped = true;
    clearInterval(this.#timer);
    if (this.#reloading !== undefined) await within(this.#reloading, STOP_MS);
  }

  /** A file may be partly written: it is read once it has not changed between two looks. */
  #look(): void {
    if (this.#reloading !== undefined) return;
    const { files } = this.#module;
    const state = [...files.keys()].map(fileState).join("\n");
    const isStill = state === this.#seen;
    this.#seen = state;
    if (!isStill || state === [...files.values()].join("\n")) return;
    this.#reloading = this.#reload().finally(() => {
      this.#reloading = undefined;
      // The previous device may have used much memory, and the collector is in no hurry.
      Bun.gc(false);
    });
  }

  async #reload(): Promise<void> {
    try {
      const next = await this.#module.load(this.#options);
      const unanswered = await this.#swap(next);
      this.#report.reloaded(
        `${displayPath(this.#module.file)} was reloaded and has taken over${left(unanswered)}`,
      );
    } catch (error) {
      if (this.#stopped || this.#device.isClosing) return;
      this.#report.failed(`${messageOf(error)}: the previous device keeps serving`);
    }
  }

  /** Returns how many requests the previous device did not answer. */
  async #swap(next: BlockDevice): Promise<number> {
    try {
      return await this.#device.swap(next);
    } catch (error) {
      if (!this.#device.uses(next)) await this.#close(next);
      throw error;
    }
  }

  async #close(device: BlockDevice): Promise<void> {
    try {
      await device.close?.();
    } catch (error) {
      this.#report.failed(`a device that is not used could not be closed: ${messageOf(error)}`);
    }
  }
}

/** As the end of a message. */
function left(unanswered: number): string {
  if (unanswered === 0) return "";
  const requests = unanswered === 1 ? "1 request" : `${unanswered} requests`;
  return `; the device before has not answered ${requests}: see what it waits for, or give --request-timeout`;
}
