/** Who owns a disk, and whether the owner has detached it. */
import { CLAIM_BYTES, ENDED_PREFIX, LOG_PREFIX, logKey, placeOf } from "./format.ts";
import type { History } from "./history.ts";
import { readHead } from "./log-reader.ts";
import type { Opened } from "./opening.ts";
import type { ObjectStore } from "./parts.ts";

export interface Owner {
  /** The host and the process. */
  readonly name: string;
  /** When it attached the disk, in milliseconds since 1970. */
  readonly since: number;
  /** It has detached the disk. Otherwise it may still write, or was killed: there is no way to tell. */
  readonly hasEnded: boolean;
}

/** Notes that the writer has detached the disk. It writes nothing after that. */
export async function noteEnd(store: ObjectStore, writer: string): Promise<void> {
  await store.create(ENDED_PREFIX + writer, new TextEncoder().encode("detached\n"));
}

/** Undefined for a disk that nobody has attached yet. @throws StoreError */
export async function ownerOf(store: ObjectStore, { history, before }: Opened): Promise<Owner | undefined> {
  const claim = before ?? (await findClaim(store, history));
  if (claim === undefined) return undefined;
  const ended = await store.get(ENDED_PREFIX + history.next.writer, 0, 1);
  return { name: claim.owner, since: claim.time, hasEnded: ended !== undefined };
}

/** The claim that began the current turn. Its key names the previous writer, which may be forgotten: list the log. */
async function findClaim(store: ObjectStore, history: History): Promise<Opened["before"]> {
  const number = (history.turns.at(-1)?.first ?? 1) - 1;
  const keyBefore = logKey({ number, writer: "" });
  for await (const { key, size } of store.list(LOG_PREFIX, keyBefore)) {
    const place = placeOf(key);
    if (place === undefined || place.number > number) break;
    if (size !== CLAIM_BYTES) continue;
    const head = await readHead(store, history.disk.id, place);
    if (head?.kind === "claim" && head.writer === history.next.writer) return head;
  }
  return undefined;
}
