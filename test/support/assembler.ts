/** Compares instructions written as bytes with the output of the assembler. */
import { expect } from "bun:test";
import { readFileSync } from "node:fs";
import { TemporaryDirectory } from "./temporary.ts";

/** Assembler and objcopy for each processor: those for x86-64 are this machine's own, if it is one. */
const TOOLS = {
  x64: { assemble: ["cc", "-c", "-x", "assembler", "-"], objcopy: "objcopy" },
  arm64: { assemble: ["aarch64-linux-gnu-as", "-"], objcopy: "aarch64-linux-gnu-objcopy" },
} as const;

export type Processor = keyof typeof TOOLS;
/** The processors whose instructions can be compared here. */
export const PROCESSORS: readonly Processor[] = process.arch === "x64" ? ["x64", "arm64"] : ["arm64"];

/** Bytes before the first instruction of a tiny program: the headers. */
const HEADER_BYTES = 120;

/** Expects a tiny program to equal the assembled `source`. */
export function expectAssembled(program: Uint8Array, source: string, processor: Processor = "x64"): void {
  expectInstructions(program.subarray(HEADER_BYTES), source, processor);
}

/** The same for instructions alone. */
export function expectInstructions(bytes: Uint8Array, source: string, processor: Processor): void {
  using directory = new TemporaryDirectory();
  const [object, text] = [directory.join("program.o"), directory.join("text")];
  const { assemble, objcopy } = TOOLS[processor];
  const assembled = Bun.spawnSync([...assemble, "-o", object], { stdin: Buffer.from(source) });
  expect(assembled.stderr.toString()).toBe("");
  Bun.spawnSync([objcopy, "-O", "binary", "-j", ".text", object, text]);
  expect(Buffer.from(bytes)).toEqual(readFileSync(text));
}
