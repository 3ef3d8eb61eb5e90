/** Where `tsbuse crash` goes on when it was interrupted: a small file of JSON. */
import { existsSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { messageOf, UserError } from "../../errors.ts";

/** Which states there are, and how many of them were tried. */
export interface Continued {
  /** Names the record, and all else that the states depend on, but for the seed. */
  readonly states: string;
  readonly seed: number;
  readonly done: number;
}

/** Undefined: it is not there, and is to be made. @throws UserError */
export function readContinued(path: string): Continued | undefined {
  if (!existsSync(path)) return undefined;
  const found = parse(path);
  if (found !== undefined) return found;
  throw new UserError(`${path} is not of tsbuse crash --continue: give another name, or remove it`);
}

function parse(path: string): Continued | undefined {
  let value: unknown;
  try {
    value = JSON.parse(readFileSync(path, "utf8"));
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw new UserError(`${path} cannot be read: ${messageOf(error)}`);
  }
  if (typeof value !== "object" || value === null) return undefined;
  const { states, seed, done } = { states: 0, seed: 0, done: -1, ...value };
  const areNumbers = [seed, done].every((each) => Number.isSafeInteger(each) && each >= 0);
  return areNumbers && typeof states === "string" ? { states, seed, done } : undefined;
}

/** It is the one before or this one, whenever it is looked at. @throws UserError */
export function writeContinued(path: string, continued: Continued): void {
  const unfinished = `${path}.new`;
  try {
    writeFileSync(unfinished, `${JSON.stringify(continued)}\n`);
    renameSync(unfinished, path);
  } catch (error) {
    throw new UserError(`${path} cannot be written: ${messageOf(error)}`);
  }
}
