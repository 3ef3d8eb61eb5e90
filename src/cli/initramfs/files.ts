/** Writes and removes the files that make the system's initramfs builder include tsbuse in its images. */
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import atBoot from "../../../scripts/rescue/at-boot.sh" with { type: "text" };
import dracutFinished from "../../../scripts/rescue/dracut/finished.sh" with { type: "text" };
import dracutModule from "../../../scripts/rescue/dracut/module-setup.sh" with { type: "text" };
import dracutSettled from "../../../scripts/rescue/dracut/settled.sh" with { type: "text" };
import initramfsToolsHook from "../../../scripts/rescue/initramfs-tools/hook.sh" with { type: "text" };
import { messageOf, UserError } from "../../errors.ts";

export const BUILDER_NAMES = ["dracut", "initramfs-tools"] as const;

export type Builder = (typeof BUILDER_NAMES)[number];

interface BuilderFacts {
  /** A path that exists if the builder is installed. */
  readonly sign: string;
  /** Rebuilds the image. */
  readonly command: string;
  /** A directory of our own: it is removed when it is empty. */
  readonly directory?: string;
  /** The files by their paths. All are executable. */
  readonly files: Readonly<Record<string, string>>;
}

const DRACUT_MODULE = "/usr/lib/dracut/modules.d/90tsbuse";

const BUILDERS: Readonly<Record<Builder, BuilderFacts>> = {
  dracut: {
    sign: "/usr/lib/dracut/modules.d",
    command: "dracut -f",
    directory: DRACUT_MODULE,
    files: {
      [`${DRACUT_MODULE}/module-setup.sh`]: dracutModule,
      [`${DRACUT_MODULE}/at-boot.sh`]: atBoot,
      [`${DRACUT_MODULE}/settled.sh`]: dracutSettled,
      [`${DRACUT_MODULE}/finished.sh`]: dracutFinished,
    },
  },
  "initramfs-tools": {
    sign: "/usr/share/initramfs-tools",
    command: "update-initramfs -u",
    files: {
      "/etc/initramfs-tools/hooks/tsbuse": initramfsToolsHook,
      "/etc/initramfs-tools/scripts/init-premount/tsbuse": atBoot,
    },
  },
};

/** In every file of ours, written by any version of tsbuse. */
const MARK = `put here by "tsbuse install-initramfs"`;

/** Where the builders look for tsbuse, in addition to root's PATH. */
const PROGRAM_DIRECTORIES = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/** The command that rebuilds the image. */
export function imageCommand(builder: Builder): string {
  return BUILDERS[builder].command;
}

/** The initramfs builder of the system at `root`. @throws UserError if there is none, or more than one. */
export function findBuilder(root: string): Builder {
  const found = BUILDER_NAMES.filter((name) => existsSync(join(root, BUILDERS[name].sign)));
  const [builder] = found;
  if (builder !== undefined && found.length === 1) return builder;
  const state =
    found.length === 0 ? "neither dracut nor initramfs-tools is" : "dracut and initramfs-tools are both";
  throw new UserError(`${state} installed in ${root}: say for which one with --dracut or --initramfs-tools`);
}

/** Whether the builder will find the program. */
export function hasProgram(root: string): boolean {
  return PROGRAM_DIRECTORIES.some((directory) => existsSync(join(root, directory, "tsbuse")));
}

/** Writes the files, replacing earlier ones. If that fails, restores the previous state. @throws UserError */
export function writeFiles(builder: Builder, root: string): string[] {
  const files = ownFiles(builder, root);
  const undo: (() => void)[] = [() => removeDirectory(builder, root)];
  try {
    for (const { path, text } of files) {
      mkdirSync(dirname(path), { recursive: true });
      const old = existsSync(path) ? readFileSync(path, "utf8") : undefined;
      undo.push(() => (old === undefined ? rmSync(path, { force: true }) : writeProgram(path, old)));
      writeProgram(path, text);
    }
  } catch (error) {
    for (const step of undo.toReversed()) step();
    throw new UserError(
      `the files for ${builder} cannot be written (${messageOf(error)}): run it as root, where ${root} can be written`,
      { cause: error },
    );
  }
  return files.map(({ path }) => path);
}

/** By rename, because an image may be built at this moment. Both builders ignore names that begin with a dot. */
function writeProgram(path: string, text: string): void {
  const temporary = join(dirname(path), ".tsbuse.new");
  try {
    writeFileSync(temporary, text);
    chmodSync(temporary, 0o755);
    renameSync(temporary, path);
  } finally {
    rmSync(temporary, { force: true });
  }
}

/** Removes what `writeFiles` wrote. @throws UserError */
export function removeFiles(builder: Builder, root: string): string[] {
  const files = ownFiles(builder, root).filter(({ path }) => existsSync(path));
  try {
    for (const { path } of files) rmSync(path);
    removeDirectory(builder, root);
  } catch (error) {
    throw new UserError(`the files for ${builder} cannot be removed (${messageOf(error)}): run it as root`, {
      cause: error,
    });
  }
  return files.map(({ path }) => path);
}

/** @throws UserError if a file that is not ours has the name of one of ours. */
function ownFiles(
  builder: Builder,
  root: string,
): readonly { readonly path: string; readonly text: string }[] {
  const files = Object.entries(BUILDERS[builder].files).map(([name, text]) => ({
    path: join(root, name),
    text,
  }));
  const foreign = files.find(({ path }) => existsSync(path) && !isOurs(path));
  if (foreign === undefined) return files;
  throw new UserError(`${foreign.path} was not written by tsbuse: move it away, then run this again`);
}

function isOurs(path: string): boolean {
  try {
    return readFileSync(path, "utf8").includes(MARK);
  } catch (error) {
    throw new UserError(`${path} cannot be read (${messageOf(error)}): run it as root`, { cause: error });
  }
}

/** Removes the directory if it is empty. */
function removeDirectory(builder: Builder, root: string): void {
  const { directory } = BUILDERS[builder];
  if (directory === undefined || !existsSync(join(root, directory))) return;
  try {
    rmdirSync(join(root, directory));
  } catch (error) {
    if (!(error instanceof Error && "code" in error && error.code === "ENOTEMPTY")) throw error;
  }
}
