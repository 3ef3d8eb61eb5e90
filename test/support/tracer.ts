/** Runs `tsbuse trace` for the tests: starts it, waits until it sees every request, and ends it. */
import { BINARY } from "./server.ts";
import { until } from "./shell.ts";

const LIMIT_MS = 60_000;

export class Tracer {
  readonly #process: Bun.Subprocess<"ignore", "pipe", "pipe">;
  readonly #text: Promise<void>;
  #output = "";

  private constructor(process: Bun.Subprocess<"ignore", "pipe", "pipe">) {
    this.#process = process;
    this.#text = this.#read();
  }

  /** Settles once every answered request is seen. @param words of the command line after `trace`. */
  static async start(...words: readonly string[]): Promise<Tracer> {
    return Tracer.startBy([BINARY], words);
  }

  /** As {@link start}, of another program than the binary. */
  static async startBy(
    program: readonly string[],
    words: readonly string[],
    env = process.env,
  ): Promise<Tracer> {
    const command = [...program, "trace", ...words];
    const tracer = new Tracer(
      Bun.spawn(command, { stdin: "ignore", stdout: "pipe", stderr: "pipe", env: { ...env } }),
    );
    await until("the heading", () => tracer.#output.includes("\n"), LIMIT_MS);
    return tracer;
  }

  get pid(): number {
    return this.#process.pid;
  }

  /** The output without the heading, and with one blank between columns. */
  get lines(): string[] {
    const [, ...lines] = this.#output.trimEnd().split("\n");
    return lines.map((line) => line.trim().replaceAll(/ +/g, " "));
  }

  /** `write 2048 + 8`, for each request of a command. */
  told(command: string): string[] {
    return this.lines.flatMap((line) => {
      const [, , name = "", ...range] = line.split(" ");
      return name === command ? [`${name} ${range.slice(0, 3).join(" ")}`] : [];
    });
  }

  /** The numbers of the 4-KiB blocks in a command's requests, sorted; each as often as it was requested. */
  blocks(command: string): number[] {
    const blocks = this.told(command).flatMap((each) => {
      const [, first, , sectors] = each.split(" ").map(Number);
      return Array.from({ length: (sectors ?? 0) / 8 }, (_, index) => (first ?? 0) / 8 + index);
    });
    return blocks.toSorted((a, b) => a - b);
  }

  /** Returns the exit status. */
  async stop(signal: NodeJS.Signals): Promise<number> {
    this.#process.kill(signal);
    return this.ended();
  }

  async ended(): Promise<number> {
    const status = await this.#process.exited;
    await this.#text;
    return status;
  }

  get errors(): Promise<string> {
    return this.#process.stderr.text();
  }

  async #read(): Promise<void> {
    const decoder = new TextDecoder();
    for await (const bytes of this.#process.stdout) this.#output += decoder.decode(bytes, { stream: true });
  }
}
