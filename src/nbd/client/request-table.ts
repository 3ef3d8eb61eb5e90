/** The requests of a session by their cookies; each object is reused when its request is done. */
import { ClientRequest } from "./request.ts";

export class RequestTable {
  readonly #all: ClientRequest[] = [];
  readonly #free: ClientRequest[] = [];
  /** By cookie: whether it is in use. */
  readonly #used: boolean[] = [];

  /** An unused request, reset. */
  take(): ClientRequest {
    const request = this.#free.pop() ?? this.#make();
    this.#used[request.cookie] = true;
    return request;
  }

  give(request: ClientRequest): void {
    request.clear();
    this.#used[request.cookie] = false;
    this.#free.push(request);
  }

  /** The unfinished request with this cookie and serial number that was sent on this connection. */
  find(cookie: number, serial: number, connection: number): ClientRequest | undefined {
    const request = this.#all[cookie];
    return request?.sentOn === connection && request.serial === serial ? request : undefined;
  }

  /** In no particular order. */
  inUse(): ClientRequest[] {
    return this.#all.filter(({ cookie }) => this.#used[cookie] === true);
  }

  #make(): ClientRequest {
    const request = new ClientRequest(this.#all.length);
    this.#all.push(request);
    return request;
  }
}
