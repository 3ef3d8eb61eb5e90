/**
 * The control socket of a serving process. The kernel announces activity on it by a signal. That wakes a thread that
 * sleeps while it waits for requests, costs nothing while there are no questions, and needs neither a thread nor a
 * check in the request loop.
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

/** One more client takes the place of a client that asks nothing or does not read its answer. */
const CONNECTIONS_MAX = 16;
/** A signal whose default action is to do nothing. */
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

  /** Undefined if there is no directory for the socket, or it cannot be made. The device is served nevertheless. */
  static open(subject: Subject, log: ((line: string) => void) | undefined): ControlServer | undefined {
    let listening: Listening | undefined;
    try {
      listening = makeSocket();
      if (listening === undefined) return undefined;
      const server = new ControlServer(listening, subject, log);
      process.on(NEWS, server.#onNews);
      unwrap(signalNews(listening.fd, SIGURG), "fcntl(F_SETOWN)");
      // Clients that connected before that have caused no signal.
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

  /** Whether no place is free, or can be made free, until a client has its answer. */
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
    // What a command waits for causes no signal of the socket.
    this.#subject.transport.watchful = true;
    // Before another client that has come meanwhile takes its place.
    connection.service();
  }

  #forget(connection: ControlConnection): void {
    this.#connections.delete(connection);
    if (this.#connections.size === 0) this.#subject.transport.watchful = this.#subject.runsCommand;
  }
}
