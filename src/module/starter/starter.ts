/** What "tsbuse new" writes: a device to start from, and the types for an editor, without anything to install. */
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { messageOf, UserError } from "../../errors.ts";
import device from "./device.txt" with { type: "text" };
import declarations from "./tsbuse.d.txt" with { type: "text" };

const DEVICE_FILE = "device.ts";

/** The library "dom" declares timers, fetch and the console, which the runtime has as well. */
const TSCONFIG = {
  compilerOptions: {
    target: "esnext",
    module: "preserve",
    lib: ["esnext", "dom"],
    types: [],
    strict: true,
    noEmit: true,
    skipLibCheck: true,
    allowImportingTsExtensions: true,
    verbatimModuleSyntax: true,
  },
};

/** Makes the directory and the files in it. Returns the path of the module. @throws UserError */
export function writeStarter(directory: string): string {
  makeDirectory(directory);
  try {
    writeFileSync(join(directory, DEVICE_FILE), device);
    writeFileSync(join(directory, "tsbuse.d.ts"), declarations);
    writeFileSync(join(directory, "tsconfig.json"), `${JSON.stringify(TSCONFIG, undefined, 2)}\n`);
  } catch (error) {
    rmSync(directory, { recursive: true });
    throw new UserError(`${directory} cannot be filled (${messageOf(error)}): choose another place`, {
      cause: error,
    });
  }
  return join(directory, DEVICE_FILE);
}

/** Makes only new directories, so that no existing file is overwritten. */
function makeDirectory(directory: string): void {
  try {
    mkdirSync(directory);
  } catch (error) {
    const exists = error instanceof Error && "code" in error && error.code === "EEXIST";
    const remedy = exists
      ? "exists already: choose another name"
      : `cannot be made (${messageOf(error)}): choose another place`;
    throw new UserError(`${directory} ${remedy}`, { cause: error });
  }
}
