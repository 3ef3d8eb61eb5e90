/** How `tsbuse crash` reports a fault. */
import { constants, copyFileSync, renameSync, rmSync } from "node:fs";
import type { Finding } from "../../crash/checker.ts";
import type { Found } from "../../crash/explore.ts";
import { describeWrite, type Fault } from "../../crash/fault.ts";
import type { Subject } from "../../crash/place.ts";
import { messageOf } from "../../errors.ts";
import { log, printResult } from "../log.ts";

/** Something was found; 2 means that it could not run. */
const STATUS_FOUND = 1;
/** How much of a checker's output to show: lines, and characters of a line. */
const LINES_SHOWN = 12;
const LINE_SHOWN = 200;

interface Telling {
  /** Where to put the image. */
  readonly save: string;
  /** The command line that tries one state again. */
  readonly repeat: (seed: number, state: number) => string;
}

/** Returns the exit status. */
export function tellFound(options: Telling, { contents }: Subject, found: Found, seed: number): number {
  const { number, mark, fault, finding } = found;
  const lines: string[] = [];
  if (fault !== undefined) {
    lines.push(describeChoice(fault));
    lines.push(...fault.writes.map((write) => `  ${describeWrite(write, contents.record)}`));
  }
  if (mark !== undefined) lines.push(`after the mark "${mark}"`);
  if (finding.output !== "") lines.push("the checker says:", ...endOf(finding));
  lines.push(`image: ${saveImage(found.image, options.save)}`, `repeat: ${options.repeat(seed, number)}`);
  printResult(lines.join("\n"));
  const now = fault === undefined ? ", once and not again: the checker may not always say the same" : "";
  log.error(`a power failure can do harm, state ${number} of seed ${seed}: ${finding.reason}${now}`);
  return STATUS_FOUND;
}

/** Which writes reached the disk, of those in flight or not flushed. */
function describeChoice({ kind, writes, pending }: Fault): string {
  if (pending === 0) return "with all that was written: more should have been by then";
  const of = `the ${pending} changes that were not durable`;
  if (writes.length > 0)
    return `${kind === "lost" ? "without" : "with no more than"} ${writes.length} of ${of}:`;
  return kind === "lost" ? `with all of ${of}: more should have been by then` : `without any of ${of}`;
}

/** The last lines of the checker's output. */
function endOf({ output }: Finding): string[] {
  const lines = output.split("\n").filter((line) => line.trim() !== "");
  const end = lines.slice(-LINES_SHOWN).map((line) => `  ${line.slice(0, LINE_SHOWN)}`);
  return lines.length > LINES_SHOWN ? ["  …", ...end] : end;
}

/** Saves the image completely or not at all, even if another process saves one under the same name. */
function saveImage(image: string, path: string): string {
  const unfinished = `${path}.${process.pid}.new`;
  try {
    copyFileSync(image, unfinished, constants.COPYFILE_FICLONE);
    renameSync(unfinished, path);
    return path;
  } catch (error) {
    rmSync(unfinished, { force: true });
    return `not saved, ${messageOf(error)}`;
  }
}

/** The last line of the checker's output. */
export function quoted({ output }: Finding): string {
  const line = output.split("\n").at(-1)?.trim() ?? "";
  return line === "" ? "" : ` ("${line.slice(0, LINE_SHOWN)}")`;
}
