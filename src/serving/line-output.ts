/** Writes lines to a terminal, a pipe, a socket or a file without ever waiting for a reader. */
import { PromptWriter } from "../libc/prompt-writer.ts";
import { MessageQueue } from "./message-queue.ts";

export class LineOutput {
  readonly #writer: PromptWriter;
  readonly #queue: MessageQueue;

  /**
   * @param fd stays the caller's, and must stay open until this is closed.
   * @param notice makes the line that stands for lines that were lost.
   */
  constructor(fd: number, notice: (lost: number) => string) {
    this.#writer = new PromptWriter(fd);
    this.#queue = new MessageQueue(
      (bytes) => this.#writer.write(bytes),
      (lost) => `${notice(lost)}\n`,
    );
  }

  /** @param line without its end. */
  write(line: string): void {
    this.#queue.push(`${line}\n`);
  }

  /** Closes it. A reader that is behind gets this much time first, in milliseconds. */
  async finish(limitMs: number): Promise<void> {
    await this.#queue.finish(limitMs);
    this.#writer.close();
  }

  /** What the reader does not take at once is dropped. */
  close(): void {
    this.#queue.close();
    this.#writer.close();
  }
}
