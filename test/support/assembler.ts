/** What the assembler makes of a text: the judge of instructions that are written as bytes. */
import { expect } from "bun:test";
import { readFileSync } from "node:fs";
import { TemporaryDirectory } from "./temporary.ts";

/** Assembler and copier of each processor: those of x86-64 are this machine's, if it is one. */
const TOOLS = {
  x64: { assemble: ["cc", "-c", "-x", "assembler", "-"], objcopy: "objcopy" },
  arm64: { assemble: ["aarch64-linux-gnu-as", "-"], objcopy: "aarch64-linux-gnu-objcopy" },
} as const;

export type Processor = keyof typeof TOOLS;
/** Those whose instructions can be compared here. */
export const PROCESSORS: readonly Processor[] = process.arch === "x64" ? ["x64", "arm64"] : ["arm64"];

/** Of a tiny program the bytes before its first instruction: the headers. */
const HEADER_BYTES = 120;

/** Expects a tiny program to be what the assembler makes of `source`. */
export function expectAssembled(program: Uint8Array, source: string, processor: Processor = "x64"): void {
  expectInstructions(program.subarray(HEADER_BYTES), source, processor);
}

/** The same of instructions alone. */
export function expectInstructions(bytes: Uint8Array, source: string, processor: Processor): void {
  using directory = new TemporaryDirectory();
  const [object, text] = [directory.join("program.o"), directory.join("text")];
  const { assemble, objcopy } = TOOLS[processor];
  const assembled = Bun.spawnSync([...assemble, "-o", object], { stdin: Buffer.from(source) });
  expect(assembled.stderr.toString()).toBe("");
  Bun.spawnSync([objcopy, "-O", "binary", "-j", ".text", object, text]);
  expect(Buffer.from(bytes)).toEqual(readFileSync(text));
}
