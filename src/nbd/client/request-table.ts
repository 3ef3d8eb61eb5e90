/** The requests of a session by their cookies; each object is used again when its request is done. */
import { ClientRequest } from "./request.ts";

export class RequestTable {
  readonly #all: ClientRequest[] = [];
  readonly #free: ClientRequest[] = [];
  /** By cookie: it is not free. */
  readonly #used: boolean[] = [];

  /** One that nobody has, as it is at first. */
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

  /** The one of this cookie and serial number that was sent on this connection and is not done. */
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
