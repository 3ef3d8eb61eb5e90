/** Installs services: their units, the udev rules that they share, and calls to systemctl. */
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { messageOf, UserError } from "../../errors.ts";
import { claimedBy } from "../serving/node-users.ts";
import rules from "./udev-rules.txt" with { type: "text" };
import { MARK, nodeOf } from "./unit.ts";

const UNITS = "/etc/systemd/system";
/** After udev's own rules, which look for file systems on other disks. */
const RULES = "/etc/udev/rules.d/61-tsbuse.rules";

/** Whether a unit of this name exists. */
export function isInstalled(unit: string): boolean {
  return existsSync(join(UNITS, unit));
}

/** Writes the unit, and enables it. If that fails, restores the previous state. @throws UserError */
export function install(unit: string, text: string): string[] {
  requireSystemd();
  const files = { [RULES]: rules, [join(UNITS, unit)]: text };
  for (const path of Object.keys(files)) refuseForeign(path);
  const wasInstalled = isInstalled(unit);
  const undo: (() => void)[] = [];
  try {
    for (const [path, contents] of Object.entries(files)) {
      const old = existsSync(path) ? readFileSync(path, "utf8") : undefined;
      undo.push(() => (old === undefined ? rmSync(path, { force: true }) : write(path, old)));
      write(path, contents);
    }
    systemctl("daemon-reload");
    undo.push(() => systemctl("disable", unit));
    systemctl("reenable", unit);
  } catch (error) {
    for (const step of undo.toReversed()) attempt(step);
    attempt(() => systemctl("daemon-reload"));
    if (wasInstalled) attempt(() => systemctl("reenable", unit));
    const why = `${unit} cannot be installed (${messageOf(error)})`;
    throw new UserError(`${why}: run it as root, and see "systemctl status"`, { cause: error });
  }
  return Object.keys(files);
}

/** Stops the service and removes its unit. The device must not be in use. @throws UserError */
export async function remove(unit: string): Promise<string[]> {
  requireSystemd();
  const path = join(UNITS, unit);
  if (!isInstalled(unit))
    throw new UserError(`there is no ${path}: see "systemctl list-unit-files 'tsbuse-*'"`);
  refuseForeign(path);
  const node = nodeOf(readFileSync(path, "utf8"));
  const use = node === undefined ? undefined : await claimedBy(node);
  if (use !== undefined) throw new UserError(`${node} is ${use}: end that first, then remove ${unit}`);
  try {
    systemctl("disable", "--now", unit);
    rmSync(path);
    const removed = hasServices() ? [path] : [path, RULES];
    for (const each of removed) rmSync(each, { force: true });
    systemctl("daemon-reload");
    return removed;
  } catch (error) {
    throw new UserError(`${unit} cannot be removed (${messageOf(error)}): run it as root`, { cause: error });
  }
}

/** Whether any service still needs the rules. */
function hasServices(): boolean {
  return readdirSync(UNITS).some((name) => /^tsbuse-.*\.service$/.test(name) && isOurs(join(UNITS, name)));
}

/** @throws UserError */
function requireSystemd(): void {
  if (!existsSync("/run/systemd/system"))
    throw new UserError(
      "systemd does not run this system: use --daemon, and start it as other services here are",
    );
}

/** @throws UserError if a file that is not ours has this name. */
function refuseForeign(path: string): void {
  if (existsSync(path) && !isOurs(path))
    throw new UserError(`${path} was not written by tsbuse: move it away, or choose another name`);
}

/** @throws UserError */
function isOurs(path: string): boolean {
  try {
    return readFileSync(path, "utf8").includes(MARK);
  } catch (error) {
    throw new UserError(`${path} cannot be read (${messageOf(error)}): run it as root`, { cause: error });
  }
}

/** By rename: systemd and udev may look at any moment, and ignore the temporary name. */
function write(path: string, text: string): void {
  const temporary = `${path}.new`;
  try {
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(temporary, text, { mode: 0o644 });
    renameSync(temporary, path);
  } finally {
    rmSync(temporary, { force: true });
  }
}

/** @throws Error with systemctl's message. */
function systemctl(...words: readonly string[]): void {
  const { exitCode, stderr } = Bun.spawnSync(["systemctl", ...words], {
    stdin: "ignore",
    stdout: "ignore",
    stderr: "pipe",
  });
  if (exitCode === 0) return;
  const said = stderr.toString().trim().split("\n").at(-1) ?? "";
  throw new Error(`systemctl ${words.join(" ")}: ${said === "" ? `exit status ${exitCode}` : said}`);
}

/** Undoes one of several steps. Ignores a failure: the step was not done, or cannot be undone. */
function attempt(step: () => void): void {
  try {
    step();
  } catch {
    // The error to report is the one that made undoing necessary.
  }
}
