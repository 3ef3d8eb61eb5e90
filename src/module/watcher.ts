/** `--watch`: a module is loaded anew when one of its files has been saved, and its device takes over. */
import type { BlockDevice } from "../device.ts";
import { messageOf } from "../errors.ts";
import { fileState } from "./file-state.ts";
import type { UserModule } from "./load.ts";
import type { GivenOptions } from "../values/option-table.ts";
import { displayPath } from "./place.ts";
import type { SwappableDevice } from "./swappable.ts";

/**
 * How often the files are looked at, in milliseconds. Looking is cheap, works on every file system, and needs no
 * care for editors that write a new file and rename it, which loses whoever watches the old one.
 */
const INTERVAL_MS = 100;

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

  /** Watches from now on. The module has been loaded, and `device` holds what it made. */
  constructor(module: UserModule, options: GivenOptions, device: SwappableDevice, report: WatchReport) {
    this.#module = module;
    this.#options = options;
    this.#device = device;
    this.#report = report;
    this.#timer = setInterval(() => this.#look(), INTERVAL_MS);
  }

  /** Stops watching; done when no reload is under way any more. */
  async stop(): Promise<void> {
    clearInterval(this.#timer);
    await this.#reloading;
  }

  /** A file may be in the middle of being written: it is read once it has not changed between two looks. */
  #look(): void {
    if (this.#reloading !== undefined) return;
    const { files } = this.#module;
    const state = [...files.keys()].map(fileState).join("\n");
    const isStill = state === this.#seen;
    this.#seen = state;
    if (!isStill || state === [...files.values()].join("\n")) return;
    this.#reloading = this.#reload().finally(() => {
      this.#reloading = undefined;
    });
  }

  async #reload(): Promise<void> {
    try {
      const next = await this.#module.load(this.#options);
      await this.#swap(next);
      this.#report.reloaded(`${displayPath(this.#module.file)} was loaded anew and has taken over`);
    } catch (error) {
      this.#report.failed(`${messageOf(error)}: the device that was there before goes on`);
    }
  }

  async #swap(next: BlockDevice): Promise<void> {
    let unused = next;
    try {
      unused = await this.#device.swap(next);
    } finally {
      // A module may well return the same device each time.
      if (!this.#device.uses(unused)) await this.#close(unused);
    }
  }

  async #close(device: BlockDevice): Promise<void> {
    try {
      await device.close?.();
    } catch (error) {
      this.#report.failed(`a device that is not used any more could not be closed: ${messageOf(error)}`);
    }
  }
}
