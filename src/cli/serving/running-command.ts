/** The command of `--run`, in a shell, with the device's path in its environment. */
import { constants } from "node:os";
import { withoutMarks } from "../../libc/process.ts";

export class RunningCommand {
  /** The exit status as a shell reports it: 128 and the signal's number if a signal ended it. */
  readonly exited: Promise<number>;
  readonly #process: Bun.Subprocess;

  constructor(command: string, devicePath: string) {
    this.#process = withoutMarks(() =>
      Bun.spawn(["/bin/sh", "-c", command], {
        env: { ...process.env, TSBUSE_DEVICE: devicePath },
        stdio: ["inherit", "inherit", "inherit"],
      }),
    );
    this.exited = this.#process.exited.then((status) => {
      const signal = this.#process.signalCode;
      return typeof signal === "string" ? 128 + constants.signals[signal] : status;
    });
  }

  /** Passes a signal on. The attachment ends when the command ends. */
  signal(name: "SIGINT" | "SIGTERM" | "SIGHUP"): void {
    this.#process.kill(name);
  }
}
