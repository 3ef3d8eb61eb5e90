/**
 * The text of a unit that serves a device: systemd.unit(5), systemd.service(5).
 *
 * File systems on the device are unmounted before its server is stopped: every mount is ordered after the
 * blockdev@.target of its node, and the server before that target (systemd.special(7)). A restart does not affect the
 * mounts.
 */

/** What a service does. All file names are absolute. */
export interface ServicePlan {
  /** As the user gave it. */
  readonly name: string;
  /** tsbuse, and its arguments. */
  readonly program: string;
  readonly words: readonly string[];
  /** `/dev/ublkb0`, or the socket of a server. */
  readonly target: string;
  /** Files that it needs besides the program. */
  readonly files: readonly string[];
}

/** In every file written for a service, by any version of tsbuse. */
export const MARK = `put here by "tsbuse install-service`;

/** The longest file name, and so the longest unit name, in bytes. */
const NAME_MAX = 255;

/** `tsbuse-NAME.service`, escaped as by systemd-escape(1). Undefined if no unit can have this name. */
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
    // Start early enough for mounts in /etc/fstab, and stop last.
    "DefaultDependencies=no",
    "After=systemd-remount-fs.service systemd-modules-load.service systemd-udevd.service",
    `RequiresMountsFor=${mountsFor.join(" ")}`,
    ...(disks.length > 0 ? [`Wants=${disks.join(" ")}`, `After=${disks.join(" ")}`] : []),
    ...blockdev.map((unit) => `Wants=${unit}`),
    `Before=${[...blockdev, "shutdown.target"].join(" ")}`,
    "Conflicts=shutdown.target",
    // As for mounts.
    "IgnoreOnIsolate=yes",
    // Keep trying: a unit that waits for the device waits until it is there.
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
    // The device unit: a unit that needs the node then pulls in its server.
    `WantedBy=${["multi-user.target", ...(node === undefined ? [] : [`dev-${node}.device`])].join(" ")}`,
    "",
  ];
  return lines.join("\n");
}

/**
 * The guardian of an NBD node frees processes that wait for a killed server. It must not be killed together with the
 * server, and ends by itself. Processes that a module starts may not end by themselves.
 */
function killMode(target: string, [device]: readonly string[]): "process" | "mixed" {
  return target.startsWith("/dev/nbd") && device !== "run" ? "process" : "mixed";
}

/** `/dev/ublkb0` from a text made by {@link unitText}; undefined when the target is a socket. */
export function nodeOf(text: string): string | undefined {
  const node = /^Wants=blockdev@dev-([a-z]+\d+)\.target$/m.exec(text)?.[1];
  return node === undefined ? undefined : `/dev/${node}`;
}

/** A word of a command. systemd replaces variables even in quoted words. */
function commandWord(word: string): string {
  return quoted(word).replaceAll("$", () => "$$");
}

/** Quotes a word so that systemd replaces nothing in it. */
function quoted(word: string): string {
  const text = word
    .replaceAll(/[\\"]/g, String.raw`\$&`)
    .replaceAll(/\p{Cc}/gu, hexadecimal)
    .replaceAll("%", "%%");
  return /^[\w@:,.=/+%-]+$/.test(text) ? text : `"${text}"`;
}

/** The device unit of a disk: its path, without leading and trailing slashes. */
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

/** Escapes each byte as `\xNN`. */
function hexadecimal(text: string): string {
  return Array.from(
    new TextEncoder().encode(text),
    (byte) => `\\x${byte.toString(16).padStart(2, "0")}`,
  ).join("");
}
