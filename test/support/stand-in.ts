/** Replaces exports of modules of src/, for code that is imported afterwards. */
import { afterAll, mock } from "bun:test";
import { join } from "node:path";

const SOURCES = join(import.meta.dir, "../../src");

/** The replaced exports, by the module's path below src/. */
type Parts = Readonly<Record<string, Readonly<Record<string, unknown>>>>;

/** Replaces them until it is disposed of. @throws Error if a module does not export one of them. */
export async function standIn(parts: Parts): Promise<AsyncDisposable> {
  await using stack = new AsyncDisposableStack();
  for (const [name, part] of Object.entries(parts)) {
    const path = join(SOURCES, name);
    const real: Readonly<Record<string, unknown>> = { ...(await import(path)) };
    const unknown = Object.keys(part).filter((key) => !(key in real));
    if (unknown.length > 0) throw new Error(`src/${name} does not export ${unknown.join(", ")}`);
    await mock.module(path, () => ({ ...real, ...part }));
    stack.defer(async () => {
      await mock.module(path, () => real);
    });
  }
  return stack.move();
}

/** Replaces them until the tests of the file are over. */
export async function standInForFile(parts: Parts): Promise<void> {
  const stack = await standIn(parts);
  afterAll(() => stack[Symbol.asyncDispose]());
}
