/** What a serving process can be asked, and how it answers. */
import type { Dispatch } from "../dispatch.ts";
import type { LayerTimes } from "../layers/layer-times.ts";
import { markRecords } from "../layers/record.ts";
import type { Stop } from "../serving/stop.ts";
import type { Transport } from "../transport.ts";
import type { Answer, Asker, Message } from "./connection.ts";
import { beginHandover, done, type Heirloom, mustNotBeTaken, release } from "./handover.ts";
import { resize } from "./resize.ts";
import { statistics } from "./statistics.ts";
import { beginTrace, nextTraced } from "./trace.ts";

/** The device in use that the commands are about. */
export interface Subject {
  readonly transport: Transport;
  readonly dispatch: Dispatch;
  readonly stop: Stop;
  /** The command line after `tsbuse`. */
  readonly words: readonly string[];
  readonly version: string;
  /** Whether a command of `--run` uses the device; its end is waited for. */
  readonly runsCommand: boolean;
  /** What a process gets that takes the device over. */
  readonly heirloom: Heirloom | undefined;
  /** How long requests spend in the layers before the device. */
  readonly layers: LayerTimes;
  /** Called when another process has taken over and this one ends. */
  readonly onHandedOn?: ((pid: number) => void) | undefined;
}

/** Carries a command out. If it throws, the error is the answer. */
type Handler = (subject: Subject, request: Message, asker: Asker) => Message | Promise<Message>;

/** By the request's `command`. */
const HANDLERS = {
  mark,
  resize: (subject, request) => {
    mustNotBeTaken(subject);
    return resize(subject, request);
  },
  statistics: (subject, request) => ({ ...status(subject), ...statistics(subject, request) }),
  status,
  "handover-begin": beginHandover,
  "handover-release": release,
  "handover-done": done,
  "trace-begin": beginTrace,
  "trace-next": nextTraced,
} as const satisfies Record<string, Handler>;

export type ControlCommand = keyof typeof HANDLERS;

/** Returns a function that answers commands about the subject. */
export function answerAbout(subject: Subject): Answer {
  const handlers: Readonly<Record<ControlCommand, Handler>> = HANDLERS;
  return (request, asker) => {
    const { command } = request;
    if (typeof command !== "string" || !isCommand(command))
      throw new Error(`this version, ${subject.version}, knows no command ${JSON.stringify(command)}`);
    return handlers[command](subject, request, asker);
  };
}

function isCommand(name: string): name is ControlCommand {
  return Object.hasOwn(HANDLERS, name);
}

/** Which process serves which device, and how. */
export interface Status {
  readonly pid: number;
  readonly version: string;
  /** The node, or the URI of a server. */
  readonly path: string;
  /** Bytes. */
  readonly size: number;
  readonly blockSize: number;
  readonly readOnly: boolean;
  /** Null if the device has no identity. */
  readonly identity: string | null;
  readonly words: readonly string[];
  readonly inFlight: number;
  /** Counts since the start: requests, errors, bytesRead and bytesWritten. */
  readonly statistics: Readonly<Record<string, number>>;
}

function status({ transport, dispatch, words, version }: Subject): Status & Message {
  return {
    pid: process.pid,
    version,
    path: transport.path,
    size: dispatch.size,
    blockSize: dispatch.blockSize,
    readOnly: !dispatch.capabilities.write,
    identity: dispatch.identity ?? null,
    words,
    inFlight: transport.inFlight,
    statistics: { ...transport.statistics },
  };
}

/** `text` becomes a mark of each record; `records` says of how many. */
function mark(_: Subject, { text }: Message): Message {
  if (typeof text !== "string") throw new Error("a mark needs a text");
  return { records: markRecords(text) };
}
