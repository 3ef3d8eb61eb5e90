/**
 * Examines a module without running it: which files it consists of, and whether they can be parsed and fit together.
 * The bundler reports both with lines and columns, which the error of an import often lacks.
 */
import type { BunPlugin } from "bun";
import { UserError } from "../errors.ts";
import { API_EXPORTS, API_NAME } from "./api.ts";
import { fileState, type FileStates } from "./file-state.ts";
import { displayPath } from "./place.ts";

/** The namespace of the stand-in for the API, which is never run. */
const STAND_IN = "api";

/**
 * Adds all files of the module to `files`, even if it is faulty: the correction is often a file that did not exist
 * before.
 * @throws UserError with the place of the first fault.
 */
export async function analyze(file: string, files: FileStates): Promise<void> {
  files.set(file, fileState(file));
  const { success, logs } = await Bun.build({
    entrypoints: [file],
    target: "bun",
    plugins: [apiStandIn, collector(files)],
    throw: false,
  });
  if (success) return;
  const errors = logs.filter(({ level }) => level === "error");
  const [first] = errors;
  const text = first?.message.replace(`"${STAND_IN}:${API_NAME}"`, `"${API_NAME}"`) ?? "it cannot be parsed";
  const more = errors.length > 1 ? ` (and ${errors.length - 1} more)` : "";
  throw new UserError(`${placeOf(first, file)}: ${text}${more}`.replaceAll("\n", " "));
}

function placeOf(message: BuildMessage | ResolveMessage | undefined, file: string): string {
  const position = message?.position;
  if (position === undefined || position === null) return displayPath(file);
  return `${displayPath(position.file)}:${position.line}:${position.column}`;
}

/** Has the names that the API exports, so that the bundler reports an import of any other. */
const apiStandIn: BunPlugin = {
  name: "api",
  setup(build) {
    build.onResolve({ filter: new RegExp(`^${API_NAME}$`) }, () => ({ path: API_NAME, namespace: STAND_IN }));
    build.onLoad({ filter: /./, namespace: STAND_IN }, () => ({
      loader: "js",
      contents: API_EXPORTS.map((name) => `export const ${name} = 0;`).join("\n"),
    }));
  },
};

function collector(files: FileStates): BunPlugin {
  return {
    name: "files",
    setup(build) {
      build.onLoad({ filter: /./, namespace: "file" }, ({ path }) => {
        files.set(path, fileState(path));
        return undefined;
      });
    },
  };
}
