/**
 * A failure that the user can act on. Its message is one line with the cause and the remedy, printed without a stack.
 */
export class Failure extends Error {
  override readonly name = "Failure";

  constructor(
    message: string,
    /** The exit status of the script: 2 if something that it needs is missing or its command line is wrong. */
    readonly exitStatus: number = 1,
  ) {
    super(message);
  }
}

/** Whatever was thrown, as one line. */
export function describeError(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return text.split("\n", 1)[0] ?? "";
}
