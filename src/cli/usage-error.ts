import { UserError } from "../errors.ts";

/** A command line that cannot be meant: exit status 2. The message is one line, cause and remedy. */
export class UsageError extends UserError {
  override readonly name = "UsageError";
}
