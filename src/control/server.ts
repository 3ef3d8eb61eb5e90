/**
 * The socket by which a serving process is asked things while it serves. The kernel tells of news by a signal: it ends
 * the wait of a thread that sleeps for requests, costs nothing while nobody asks, and needs neither a thread nor a
 * look from the request loop.
 */
import { messageOf } from "../errors.ts";
import { close } from "../libc/file.ts";
import { accept } from "../libc/listen.ts";
import { signalNews } from "../libc/socket.ts";
import { unwrap } from "../libc/errno.ts";
import { SIGURG } from "../uapi/signal.ts";
import { answerAbout, type Subject } from "./commands.ts";
import { type Answer, ControlConnection } from "./connection.ts";
import { type Listening, makeSocket, removeSocket } from "./place.ts";

/** A further one takes the place of one that asks nothing, or does not read the answer. */
const CONNECTIONS_MAX = 16;
/** It does nothing where nobody listens to it, unlike others. */
const NEWS = "SIGURG";

export class ControlServer {
  readonly #listening: Listening;
  readonly #subject: Subject;
  readonly #answer: Answer;
  readonly #log: ((line: string) => void) | undefined;
  readonly #connections = new Set<ControlConnection>();
  readonly #onNews = (): void => this.#service();
  #isClosed = false;

  private constructor(listening: Listening, subject: Subject, log: ((line: string) => void) | undefined) {
    this.#listening = listening;
    this.#subject = subject;
    const answer = answerAbout(subject);
    this.#answer = async (request, asker) => {
      try {
        return await answer(request, asker);
      } finally {
        setImmediate(this.#onNews);
      }
    };
    this.#log = log;
  }

  /** Undefined where there is no place for it, or it cannot be had: a device is served all the same. */
  static open(subject: Subject, log: ((line: string) => void) | undefined): ControlServer | undefined {
    let listening: Listening | undefined;
    try {
      listening = makeSocket();
      if (listening === undefined) return undefined;
      const server = new ControlServer(listening, subject, log);
      process.on(NEWS, server.#onNews);
      unwrap(signalNews(listening.fd, SIGURG), "fcntl(F_SETOWN)");
      // Who came before that has been told by nobody.
      server.#service();
      return server;
    } catch (error) {
      if (listening !== undefined) removeSocket(listening);
      log?.(`the device is served, but no other command can ask about it: ${messageOf(error)}`);
      return undefined;
    }
  }

  close(): void {
    this.#isClosed = true;
    process.off(NEWS, this.#onNews);
    for (const connection of this.#connections) connection.close();
    const failure = removeSocket(this.#listening);
    if (failure !== undefined) this.#log?.(`${this.#listening.path} could not be removed: ${failure}`);
  }

  #service(): void {
    // The next has its turn when one of them has its answer.
    while (!this.#isClosed && !this.#isBusy) {
      const { fd } = accept(this.#listening.fd);
      if (fd < 0) break;
      this.#take(fd);
    }
    for (const connection of this.#connections) connection.service();
  }

  /** Whether there is no place that is free, or can be, until somebody has an answer. */
  get #isBusy(): boolean {
    const all = [...this.#connections];
    return (
      all.length >= CONNECTIONS_MAX &&
      all.every(({ keepsPlace }) => keepsPlace) &&
      all.some(({ isAnswering }) => isAnswering)
    );
  }

  #take(fd: number): void {
    if (this.#connections.size >= CONNECTIONS_MAX)
      [...this.#connections].find((connection) => !connection.keepsPlace)?.close();
    if (this.#connections.size >= CONNECTIONS_MAX || signalNews(fd, SIGURG) < 0) {
      close(fd);
      return;
    }
    const connection = new ControlConnection(fd, this.#answer, (over) => this.#forget(over));
    this.#connections.add(connection);
    // What a command waits for is no news of the socket.
    this.#subject.transport.watchful = true;
    // Before others who have come meanwhile take its place.
    connection.service();
  }

  #forget(connection: ControlConnection): void {
    this.#connections.delete(connection);
    if (this.#connections.size === 0) this.#subject.transport.watchful = this.#subject.runsCommand;
  }
}
