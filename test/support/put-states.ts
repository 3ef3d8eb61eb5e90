/**
 * Every possible state of a bucket when its writer ends: answered changes are done, and any of those in flight may be,
 * in any order. The rest may be done later, while the next writer works.
 */
import type { Listed, ObjectStore, PutResult } from "../../devices/bucket/parts.ts";
import { Bucket } from "./bucket.ts";

/** An object that is made, or removed if it has no body. */
interface Change {
  readonly key: string;
  readonly body: Uint8Array | undefined;
}

interface Event<Mark> {
  readonly change: Change;
  /** The change is answered; otherwise it begins. */
  readonly isEnd: boolean;
  /** The state of the test before the event. */
  readonly mark: Mark;
}

export interface PutState<Mark> {
  readonly bucket: Bucket;
  /** Changes that are still in flight. */
  readonly late: readonly Change[];
  readonly mark: Mark;
}

/** A store that notes when each change is in flight. */
export class Witness<Mark> implements ObjectStore {
  readonly name: string;
  readonly #store: ObjectStore;
  readonly #mark: () => Mark;
  readonly #events: Event<Mark>[] = [];
  /** The contents of the bucket before. */
  readonly #before: ReadonlyMap<string, Uint8Array>;

  constructor(store: ObjectStore, bucket: Bucket, mark: () => Mark) {
    this.#store = store;
    this.#mark = mark;
    this.#before = new Map(bucket.objects);
    this.name = store.name;
  }

  /** Moments at which the writer may end. */
  get moments(): number {
    return this.#events.length;
  }

  /** The bucket just before the event with this number. @param isDone decides whether a change in flight is done. */
  stateAt(moment: number, isDone: () => boolean): PutState<Mark> {
    const bucket = new Bucket();
    for (const [key, body] of this.#before) bucket.objects.set(key, body);
    const onTheirWay = new Set<Change>();
    for (const { change, isEnd } of this.#events.slice(0, moment)) {
      if (!isEnd) onTheirWay.add(change);
      else if (onTheirWay.delete(change)) apply(bucket, change);
    }
    const late: Change[] = [];
    for (const change of onTheirWay) {
      if (isDone()) apply(bucket, change);
      else late.push(change);
    }
    return { bucket, late, mark: this.#events[moment]?.mark ?? this.#mark() };
  }

  async create(key: string, body: Uint8Array<ArrayBuffer>, signal?: AbortSignal): Promise<PutResult> {
    const change = { key, body: body.slice() };
    this.#note(change, false);
    const result = await this.#store.create(key, body, signal);
    this.#note(change, true);
    return result;
  }

  get(key: string, start: number, length: number, signal?: AbortSignal): Promise<Uint8Array | undefined> {
    return this.#store.get(key, start, length, signal);
  }

  list(prefix: string, after?: string, signal?: AbortSignal): AsyncIterable<Listed> {
    return this.#store.list(prefix, after, signal);
  }

  async remove(key: string, signal?: AbortSignal): Promise<void> {
    const change = { key, body: undefined };
    this.#note(change, false);
    await this.#store.remove(key, signal);
    this.#note(change, true);
  }

  #note(change: Change, isEnd: boolean): void {
    this.#events.push({ change, isEnd, mark: this.#mark() });
  }
}

export function apply(bucket: Bucket, { key, body }: Change): void {
  if (body === undefined) bucket.objects.delete(key);
  else bucket.put(key, body);
}
