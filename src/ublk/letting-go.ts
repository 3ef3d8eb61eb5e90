/** The release of a device by its server, so that another process can serve it. */
import { messageOf, UserError } from "../errors.ts";

export class LettingGo {
  /** The driver has nothing of this server any more. */
  isGone = false;
  readonly #left = Promise.withResolvers<void>();
  readonly #outcome = Promise.withResolvers<"taken back" | "handed on">();

  /** Settles when the driver has nothing of this server any more. @throws UserError if that fails. */
  get left(): Promise<void> {
    return this.#left.promise;
  }

  /** How it ended. */
  get outcome(): Promise<"taken back" | "handed on"> {
    return this.#outcome.promise;
  }

  hasLeft(): void {
    this.isGone = true;
    this.#left.resolve();
  }

  end(outcome: "taken back" | "handed on"): void {
    this.#outcome.resolve(outcome);
  }

  fail(reason: unknown): void {
    this.#left.reject(new UserError(`the device ended before it was let go of: ${messageOf(reason)}`));
  }
}
