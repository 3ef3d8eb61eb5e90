/** What the assembler makes of a text: the judge of instructions that are written as bytes. For x86-64. */
import { expect } from "bun:test";
import { readFileSync } from "node:fs";
import { TemporaryDirectory } from "./temporary.ts";

/** Of a tiny program the bytes before its first instruction: the headers. */
const HEADER_BYTES = 120;

/** Expects a tiny program to be what the assembler makes of `source`. */
export function expectAssembled(program: Uint8Array, source: string): void {
  using directory = new TemporaryDirectory();
  const [object, text] = [directory.join("program.o"), directory.join("text")];
  const command = ["cc", "-c", "-x", "assembler", "-", "-o", object];
  const assembled = Bun.spawnSync(command, { stdin: Buffer.from(source) });
  expect(assembled.stderr.toString()).toBe("");
  Bun.spawnSync(["objcopy", "-O", "binary", "-j", ".text", object, text]);
  expect(Buffer.from(program.subarray(HEADER_BYTES))).toEqual(readFileSync(text));
}
