/** The page tsbuse(1), in the language of man(7). The same commands always give the same page. */
import type { Command, Example } from "../command.ts";
import { LAYER_TEXTS, type LayerText } from "../options/layers.ts";
import {
  EXIT_STATUSES,
  GENERAL_OPTIONS,
  type Option,
  ownOptions,
  positionals,
  SERVING_OPTIONS,
  TAGLINE,
  VERSION,
} from "./documentation.ts";

/** A term and its explanation. */
type Entry = readonly [term: string, meaning: string];

const DESCRIPTION = [
  [
    "tsbuse puts a device on a node of this system, /dev/ublkb0 or /dev/nbd0 for example, and answers its reads",
    "and writes. The device is a program: memory, a file, or something of your own.",
    "The node is a block device like any other: it can be partitioned, formatted, mounted, and be part of",
    "a RAID or of device-mapper.",
  ].join(" "),
  [
    "A device command stays in the foreground and prints the path of the node to stdout once it can be",
    "used, its partitions included. Messages go to stderr; nobody waits for who reads them, and what a reader has not",
    "taken in time is counted.",
    "Attaching to a node needs root (CAP_SYS_ADMIN); a driver that is not loaded is loaded.",
  ].join(" "),
  [
    "TARGET is the node: /dev/ublkbN of the ublk driver or /dev/nbdN of the NBD driver; ublk or nbd for one that is",
    "free; or auto, which is ublk where the kernel offers it (Linux 6.5 or newer) and nbd elsewhere.",
    "ublk is faster, has no fixed number of nodes, tells errors apart, and its devices can outlive their server.",
    "Or it is a socket, where any NBD client finds the",
    "device, with no root and no driver: unix:PATH, tcp:HOST:PORT, or the URI nbd+unix:///NAME?socket=PATH or",
    "nbd://HOST:PORT/NAME. Its URI is what is printed then. TCP listens on the loopback address unless HOST is another;",
    "it has no encryption and asks for no password.",
    "A node that somebody uses is never taken over.",
    "Sizes are bytes, or numbers with K, M, G or T, powers of 1024: 4096, 512M, 1.5G, 64KiB.",
  ].join(" "),
];

const LAYERS_INTRODUCTION = [
  [
    "A layer stands between the node and the device and does something with the requests that pass.",
    "--layer can be given several times: data passes the first one first.",
    "A comma in a value is a comma of the value unless a KEY= follows it.",
  ].join(" "),
];

const ENVIRONMENT: readonly Entry[] = [
  ["TSBUSE_DEVICE", "The path of the node. Set for the command of --run."],
  [
    "NOTIFY_SOCKET",
    "Set by systemd for a service of Type=notify, which is told when the device can be used.",
  ],
];

const FILES: readonly Entry[] = [
  ["/dev/ublkbN", "The nodes of the ublk driver: each is there while its device is."],
  ["/dev/ublk\\-control", "Where the ublk driver takes its commands."],
  ["/dev/nbdN", "The nodes of the NBD driver. Its parameter nbds_max says how many there are."],
  [
    "/dev/nbdNpM",
    "Their partitions. The NBD driver's parameter max_part says how many there can be; 0 means none.",
  ],
  ["/sys/block/nbdN/pid", "The thread that serves the node; absent while it is free."],
  ["/dev/log", "Where messages go under --daemon; to /dev/kmsg where nobody listens there."],
];

const NOTES = [
  [
    "SIGINT, SIGTERM and SIGHUP end a device: what the system still holds for it is written to it, it is",
    "disconnected, and tsbuse exits with status 0.",
    "With --run the signal goes to its command, whose end is the end of the device.",
    "A second SIGINT or SIGTERM cuts the device off without writing anything back.",
    "A daemon ignores SIGHUP.",
  ].join(" "),
  [
    "Unmount before you end tsbuse: a file system that is still mounted then fails, and its last changes",
    "are lost if they could not be written back. The order at shutdown is umount, then tsbuse.",
  ].join(" "),
  [
    "tsbuse ignores SIGTSTP (Ctrl-Z), SIGTTIN and SIGTTOU.",
    "SIGSTOP cannot be ignored: the NBD driver ends the connection when the thread that holds it is stopped,",
    "by that signal or by a debugger, and every later request fails.",
    "Do not stop tsbuse while its NBD node is in use; a ublk device waits until it goes on.",
  ].join(" "),
  [
    "--initrd is for the device of a root file system, started in an initramfs. Its argv[0] is @tsbuse, which",
    "systemd spares at shutdown (systemd.io/ROOT_STORAGE_DAEMONS). It holds nothing of the initramfs open, and it is",
    "reached in the new root as before. /dev must be moved to the new root, as switch_root does it.",
  ].join(" "),
  "With --timeout 0, the default, a program that waits for a device that does not answer waits for ever.",
];

export function manPage(commands: readonly Command[]): string {
  return [
    `.TH TSBUSE 1 "" ${argument(`tsbuse ${VERSION}`)} "User Commands"`,
    section("NAME", [`tsbuse \\- ${prose(TAGLINE)}`]),
    section("SYNOPSIS", synopsis(commands)),
    section("DESCRIPTION", paragraphs(DESCRIPTION)),
    section("COMMANDS", commands.flatMap(commandLines)),
    section("COMMON OPTIONS", [
      ...paragraphs(["Every device command has these:"]),
      ...SERVING_OPTIONS.flatMap(([title, options]) =>
        [`.SS ${argument(title)}`].concat(options.flatMap(optionLines)),
      ),
      `.SS ${argument("tsbuse itself")}`,
      ...paragraphs(["tsbuse itself has these, and each command has --help:"]),
      ...GENERAL_OPTIONS.flatMap(optionLines),
    ]),
    section("LAYERS", [...paragraphs(LAYERS_INTRODUCTION), ...LAYER_TEXTS.flatMap(layerLines)]),
    section("EXIT STATUS", EXIT_STATUSES.flatMap(entryLines)),
    section("ENVIRONMENT", ENVIRONMENT.flatMap(entryLines)),
    section("FILES", FILES.flatMap(entryLines)),
    section(
      "EXAMPLES",
      commands.flatMap(({ text }) => text.examples.flatMap(exampleLines)),
    ),
    section("NOTES", paragraphs(NOTES)),
    section("SEE ALSO", [".BR nbd\\-client (8),", ".BR losetup (8)"]),
  ].join("\n");
}

function section(name: string, lines: readonly string[]): string {
  return [`.SH ${argument(name)}`, ...lines].join("\n");
}

/** A line for each command. Not every man(1) knows `.SY`. */
function synopsis(commands: readonly Command[]): string[] {
  return commands.flatMap((each, index) => [
    ...(index === 0 ? [] : [".br"]),
    `.B tsbuse ${escape(each.text.name)}`,
    `[options] ${synopsisWords(each)}`.trimEnd(),
  ]);
}

/** `\fISIZE\fR \fITARGET\fR`. */
function synopsisWords({ text }: Command): string {
  const rest = text.rest === undefined ? "" : ` [\\-\\- ${text.rest}...]`;
  return `${text.synopsis}${rest}`.replaceAll(/[A-Z]+/g, (word) => `\\fI${word}\\fR`);
}

function commandLines(each: Command): string[] {
  const { name, summary, details } = each.text;
  return [
    `.SS ${argument(`${name} ${each.text.synopsis}`.trimEnd())}`,
    prose(`${summary}.`),
    ...positionals(each).flatMap(({ name: term, description }) => [
      ".TP",
      `.I ${escape(term)}`,
      prose(description),
    ]),
    ...ownOptions(each).flatMap(optionLines),
    ...paragraphs(details),
  ];
}

/** `.TP`, the option in bold, and the placeholder of its value in italics. */
function optionLines({ name, short, value, description }: Option): string[] {
  const names = [...(short === undefined ? [] : [`-${short}`]), `--${name}`].map(
    (each) => `\\fB${escape(each)}\\fR`,
  );
  const term = names.join(", ") + (value === undefined ? "" : ` \\fI${escape(value)}\\fR`);
  return [".TP", term, prose(description)];
}

/** The layer as it is typed, what it does, and then its options. */
function layerLines({ usage, summary, options }: LayerText): string[] {
  return [
    ...entryLines([usage, `${summary}.`]),
    ...(options.length === 0 ? [] : [".RS", ...options.flatMap(entryLines), ".RE"]),
  ];
}

function entryLines([term, meaning]: Entry): string[] {
  return [".TP", `.B ${escape(term)}`, prose(meaning)];
}

function exampleLines({ line, does }: Example): string[] {
  return [".TP", prose(`${does.charAt(0).toUpperCase()}${does.slice(1)}:`), ".EX", prose(line), ".EE"];
}

function paragraphs(texts: readonly string[]): string[] {
  return texts.flatMap((text) => [".PP", prose(text)]);
}

/** A line of text. A leading full stop or apostrophe would make it a request. */
function prose(text: string): string {
  return text.startsWith(".") || text.startsWith("'") ? `\\&${escape(text)}` : escape(text);
}

/** An argument of a request, quoted. */
function argument(text: string): string {
  return `"${escape(text)}"`;
}

const ESCAPES: Readonly<Record<string, string>> = {
  "\\": "\\e",
  "-": "\\-",
  "'": "\\(aq",
  '"': "\\(dq",
  "`": "\\(ga",
  "^": "\\(ha",
  "~": "\\(ti",
};

/** Escapes characters that would be commands, or would be printed as others than those to type. */
function escape(text: string): string {
  return text.replaceAll(/[\\\-'"`^~]/g, (character) => ESCAPES[character] ?? character);
}
