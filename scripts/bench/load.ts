/** Builds the load generator, load.c, and runs it against a Unix socket. */
import { Failure } from "../lib/failure.ts";
import { binaryOf, compile } from "./compile.ts";
import type { Cell } from "./cells.ts";

export const LOAD = binaryOf("load");

/** Builds it. @throws Failure */
export function buildLoad(): Promise<void> {
  return compile("load");
}

/** Where a server is. */
export interface Address {
  readonly socket: string;
  readonly exportName: string;
}

/** How long to measure, and the seed of the random numbers. */
export interface Effort {
  readonly seconds: number;
  /** Seconds that come first on the same connection, and are not counted. */
  readonly warmSeconds: number;
  readonly seed: number;
}

export interface LoadResult {
  /** Requests per second. */
  readonly rate: number;
  /** All requests of the connection, those before the counted ones included. */
  readonly total: number;
  readonly p50: number;
  readonly p99: number;
}

/** What load.c prints. */
interface Output {
  readonly unsupported?: boolean;
  readonly requests: number;
  readonly seconds: number;
  readonly total: number;
  readonly p50: number;
  readonly p99: number;
}

/**
 * Runs one cell. Calls `look` while the generator still holds its connection and has nothing in flight.
 *
 * @returns undefined when the server does not support the request.
 * @throws Failure with the generator's reason.
 */
export async function runLoad(
  address: Address,
  shape: Pick<Cell, "block" | "depth"> & { readonly mode: Cell["mode"] | "fill" },
  effort: Effort,
  look: () => void = () => {},
): Promise<LoadResult | undefined> {
  const words = [address.socket, address.exportName, shape.mode, shape.block, shape.depth];
  const times = [effort.seconds, effort.warmSeconds, effort.seed];
  const child = Bun.spawn([LOAD, "run", ...words.map(String), ...times.map(String)], {
    stdio: ["pipe", "pipe", "pipe"],
  });
  const line = await firstLine(child.stdout);
  look();
  await child.stdin.end();
  const [complaint, status] = await Promise.all([child.stderr.text(), child.exited]);
  if (status !== 0) throw new Failure(`${shape.mode} of ${shape.block} bytes: ${complaint.trim()}`);
  const output: Output = JSON.parse(line);
  if (output.unsupported === true) return undefined;
  const { requests, seconds, total, p50, p99 } = output;
  return { rate: requests / seconds, total, p50, p99 };
}

/** The first line without its line feed; does not read the rest of the stream. */
export async function firstLine(stream: ReadableStream<Uint8Array<ArrayBuffer>>): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  for await (const chunk of stream) {
    text += decoder.decode(chunk, { stream: true });
    if (text.includes("\n")) break;
  }
  return text.split("\n", 1)[0] ?? "";
}

/** Milliseconds from exec of a server to the end of a handshake with it. Then ends it, unless it has detached. */
export async function measureReady(address: Address, command: readonly string[]): Promise<number> {
  const child = Bun.spawn([LOAD, "ready", address.socket, address.exportName, ...command], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  const [line, complaint, status] = await Promise.all([
    child.stdout.text(),
    child.stderr.text(),
    child.exited,
  ]);
  if (status !== 0) throw new Failure(complaint.trim());
  const { ms }: { readonly ms: number } = JSON.parse(line);
  return ms;
}
