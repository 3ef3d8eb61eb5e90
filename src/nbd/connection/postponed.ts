/**
 * The request for whose payload there is no memory now: it stays in the inbox, and is decoded again when there is some.
 * Its time runs all the same; when that is up, it is decoded to be refused.
 */
import type { PoolUser } from "./payload-pool.ts";
import type { Request } from "./request.ts";
import type { Service } from "./service.ts";

export class Postponed {
  readonly #service: Service;
  readonly #user: PoolUser;

  /** @param user whom the pool has refused. */
  constructor(service: Service, user: PoolUser) {
    this.#service = service;
    this.#user = user;
  }

  /** There is no memory for the request, or still none. */
  add(request: Request): void {
    if (request.isPostponed) return;
    request.isPostponed = true;
    this.#service.watchdog?.watch(request);
  }

  /** The request has been begun, or never will be: it no longer waits for memory, and others continue. */
  remove(request: Request): void {
    if (request.isPostponed) this.#service.watchdog?.release(request);
    request.isPostponed = false;
    this.#service.pool.forget(this.#user);
  }
}
