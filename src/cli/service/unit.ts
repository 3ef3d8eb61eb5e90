/**
 * The text of a unit that serves a device: systemd.unit(5), systemd.service(5).
 *
 * File systems on the device are unmounted before its server is told to end: every mount is ordered after the
 * blockdev@.target of its node, and the server before that target (systemd.special(7)). A restart does not affect the
 * mounts.
 */

/** What a service does, all files by their full names. */
export interface ServicePlan {
  /** As the user gave it. */
  readonly name: string;
  /** tsbuse, and its words. */
  readonly program: string;
  readonly words: readonly string[];
  /** `/dev/ublkb0`, or where a server listens. */
  readonly target: string;
  /** What it needs besides the program. */
  readonly files: readonly string[];
}

/** In every file that is written for a service, whichever version of tsbuse wrote it. */
export const MARK = `put here by "tsbuse install-service`;

/** Names of files, and so of units, are at most this long, in bytes. */
const NAME_MAX = 255;

/** `tsbuse-NAME.service`, as systemd-escape(1) would have it. Undefined when there can be no unit of that name. */
export function unitName(name: string): string | undefined {
  if (name === "" || /[/\p{Cc}]/u.test(name)) return undefined;
  const unit = `tsbuse-${escaped(name, /[A-Za-z0-9:_.-]/)}.service`;
  return unit.length <= NAME_MAX ? unit : undefined;
}

export function unitText({ name, program, words, target, files }: ServicePlan): string {
  const node = /^\/dev\/([a-z]+\d+)$/.exec(target)?.[1];
  const disks = files.filter((path) => path.startsWith("/dev/")).map(deviceUnit);
  const mountsFor = [program, ...files.filter((path) => !path.startsWith("/dev/"))].map((path) =>
    quoted(path),
  );
  const blockdev = node === undefined ? [] : [`blockdev@dev-${node}.target`];
  const lines = [
    `# ${MARK} ${name}", and taken away with --remove. "systemctl edit" changes it.`,
    "[Unit]",
    `Description=tsbuse on ${target.replaceAll("%", "%%")}`,
    "Documentation=man:tsbuse(1)",
    // Early enough for mounts of /etc/fstab, and to the end.
    "DefaultDependencies=no",
    "After=systemd-remount-fs.service systemd-modules-load.service systemd-udevd.service",
    `RequiresMountsFor=${mountsFor.join(" ")}`,
    ...(disks.length > 0 ? [`Wants=${disks.join(" ")}`, `After=${disks.join(" ")}`] : []),
    ...blockdev.map((unit) => `Wants=${unit}`),
    `Before=${[...blockdev, "shutdown.target"].join(" ")}`,
    "Conflicts=shutdown.target",
    // As mounts are.
    "IgnoreOnIsolate=yes",
    // A unit that waits for the device waits until it is there.
    "StartLimitIntervalSec=0",
    "",
    "[Service]",
    "Type=notify",
    `ExecStart=${[program, ...words].map((word) => commandWord(word)).join(" ")}`,
    "Restart=always",
    "RestartSec=1",
    "RestartPreventExitStatus=2",
    "TimeoutStartSec=3min",
    "TimeoutStopSec=5min",
    `KillMode=${killMode(target, words)}`,
    "OOMScoreAdjust=-1000",
    "ManagedOOMPreference=omit",
    "LimitMEMLOCK=infinity",
    "",
    "[Install]",
    // The second: a unit that needs the node pulls in its server.
    `WantedBy=${["multi-user.target", ...(node === undefined ? [] : [`dev-${node}.device`])].join(" ")}`,
    "",
  ];
  return lines.join("\n");
}

/**
 * The guardian of an NBD node frees the processes that wait for a killed server. It must not be killed together with
 * the server, and ends by itself; what a module has started may not.
 */
function killMode(target: string, [device]: readonly string[]): "process" | "mixed" {
  return target.startsWith("/dev/nbd") && device !== "run" ? "process" : "mixed";
}

/** `/dev/ublkb0` of a text that {@link unitText} has made; undefined when its target is a socket. */
export function nodeOf(text: string): string | undefined {
  const node = /^Wants=blockdev@dev-([a-z]+\d+)\.target$/m.exec(text)?.[1];
  return node === undefined ? undefined : `/dev/${node}`;
}

/** A word of a command: variables are replaced in those as well. */
function commandWord(word: string): string {
  return quoted(word).replaceAll("$", () => "$$");
}

/** As one word, in which nothing is replaced. */
function quoted(word: string): string {
  const text = word
    .replaceAll(/[\\"]/g, String.raw`\$&`)
    .replaceAll(/\p{Cc}/gu, hexadecimal)
    .replaceAll("%", "%%");
  return /^[\w@:,.=/+%-]+$/.test(text) ? text : `"${text}"`;
}

/** The unit of a disk: its path, without the slashes at its ends. */
function deviceUnit(path: string): string {
  return `${path
    .slice(1)
    .split("/")
    .map((part) => escaped(part, /[A-Za-z0-9:_.]/))
    .join("-")}.device`;
}

function escaped(text: string, allowed: RegExp): string {
  return Array.from(text, (letter) => (allowed.test(letter) ? letter : hexadecimal(letter))).join("");
}

/** Each byte as `\xNN`. */
function hexadecimal(text: string): string {
  return Array.from(
    new TextEncoder().encode(text),
    (byte) => `\\x${byte.toString(16).padStart(2, "0")}`,
  ).join("");
}
