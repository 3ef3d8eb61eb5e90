import { resolve } from "node:path";
import type { BlockDevice } from "../../device.ts";
import { messageOf } from "../../errors.ts";
import { UserModule } from "../../module/load.ts";
import { SwappableDevice } from "../../module/swappable.ts";
import { ModuleWatcher } from "../../module/watcher.ts";
import type { GivenOptions } from "../../values/option-table.ts";
import { deviceCommand } from "../command.ts";
import { log } from "../log.ts";
import { flag, positional } from "../options/argument.ts";
import { parseModuleOptions } from "../options/words.ts";
import { TARGET } from "../options/serving.ts";
import { isDaemonChild, startDaemon } from "../serving/daemon.ts";
import { foundAfter } from "../../serving/watchdog.ts";
import { takeConsole } from "../serving/module-console.ts";
import { serveCommand } from "../serving/serve-command.ts";
import { UsageError } from "../usage-error.ts";

export default deviceCommand(
  {
    name: "run",
    summary: "A device of your own, in TypeScript",
    synopsis: "MODULE TARGET",
    rest: "KEY=VALUE",
    details: [
      'MODULE is a .ts or .js file. Its default export is a device, or a function or class that makes one from the options after --, perhaps as a promise. It imports the library from "tsbuse", with nothing installed; "tsbuse new" writes one to begin with.',
      "With --watch tsbuse reloads the module when one of its files is saved. The new device takes over between two requests while it stays in use; its method takeOver, if it has one, gets the previous device. If the module cannot be loaded, or has another size or other capabilities, the previous device stays. A read that hangs gets 2 s; if it ends later, the new device is asked again. A change that hangs keeps the previous device, until --request-timeout gives up on it. Whatever only the previous module refers to is freed; it must end its timers and sockets itself, in close.",
    ],
    examples: [
      { line: "tsbuse run ./mydisk.ts /dev/nbd0", does: "a device of your own on /dev/nbd0" },
      {
        line: "tsbuse run ./mydisk.ts auto --watch -- size=1G",
        does: "with an option for the module, and reloaded whenever it is saved",
      },
    ],
  },
  {
    module: positional("A .ts or .js file"),
    target: TARGET,
    watch: flag("Reload the module when it is saved, while it is in use"),
  },
  async ({ target, watch, ...args }, options, words) => {
    const moduleOptions = parseModuleOptions(words);
    if (options.daemon && watch) {
      // A daemon has another working directory, in which relative names in the module would mean other files.
      throw new UsageError("--daemon and --watch exclude each other: leave out one");
    }
    if (options.daemon && !isDaemonChild()) return startDaemon(options.initrd);
    // Before a node is touched, and while a signal still ends the program: a module may be slow.
    const module = new UserModule(resolve(args.module));
    takeConsole();
    const endsEarly = (): void => endedBy(module.file);
    process.on("exit", endsEarly);
    try {
      const device = await module.load(moduleOptions);
      surviveStrays();
      const whyNoSwap = 'its methods take memory while they answer: give "loop FILE --direct"';
      const serve = (served: BlockDevice): Promise<number> =>
        serveCommand(target, options, () => ({
          device: served,
          needsEventLoop: true,
          whyNoSwap,
          origin: module.file,
        }));
      return watch
        ? await serveWatched(module, moduleOptions, device, options.requestTimeoutMs, serve)
        : await serve(device);
    } finally {
      process.off("exit", endsEarly);
    }
  },
);

async function serveWatched(
  module: UserModule,
  moduleOptions: GivenOptions,
  first: BlockDevice,
  timeoutMs: number | undefined,
  serve: (device: BlockDevice) => Promise<number>,
): Promise<number> {
  const giveUpMs = timeoutMs === undefined ? undefined : foundAfter(timeoutMs);
  const device = new SwappableDevice(first, failed, giveUpMs);
  const watcher = new ModuleWatcher(module, moduleOptions, device, {
    reloaded: (line) => log.info(line),
    failed,
  });
  try {
    return await serve(device);
  } finally {
    await watcher.stop();
  }
}

/** The module, or a library that it uses, called process.exit(): that is a failure, whatever its status. */
function endedBy(file: string): void {
  process.exitCode = 1;
  failed(`${file} has ended the process: what was not written is lost`);
}

function failed(line: string): void {
  log.error(line);
}

/** Reports exceptions outside the module's methods, in a timer for example. The device keeps serving. */
function surviveStrays(): void {
  process.on("uncaughtException", reportStray);
  process.on("unhandledRejection", reportStray);
}

function reportStray(thrown: unknown): void {
  log.error(`the module failed outside of a request: ${messageOf(thrown)}`);
}
