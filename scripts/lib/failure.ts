/**
 * A failure that the user can act on. Its message is one line with the cause and the remedy, printed as it is,
 * without a stack.
 */
export class Failure extends Error {
  override readonly name = "Failure";

  constructor(
    message: string,
    /** What the script exits with: 2 when something that it needs is missing or its command line is wrong. */
    readonly exitStatus: number = 1,
  ) {
    super(message);
  }
}

/** What went wrong, in one line, whatever was thrown. */
export function describeError(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return text.split("\n", 1)[0] ?? "";
}
