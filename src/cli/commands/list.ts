import { backendText } from "../../nbd/node/backend.ts";
import { nbdNodes } from "../../nbd/node/nodes.ts";
import { isAttached, type NodeState } from "../../nodes/node-state.ts";
import { ublkNodes } from "../../ublk/nodes.ts";
import { command } from "../command.ts";
import { log, printResult } from "../log.ts";
import { flag } from "../options/argument.ts";
import { formatSize } from "../text.ts";

export default command(
  {
    name: "list",
    summary: "Show what is attached",
    synopsis: "",
    details: [
      [
        "A line for each attached node, ublk or NBD, whichever program serves it.",
        "FLAGS are what the device offers: ro (read-only), rotational, flush, fua, trim and zeroes.",
        "PID and COMMAND are the process that serves it, MOUNTED/HELD what uses it: mount points, swap, and",
        "devices on top of it, also those of its partitions. Needs no root, but only root is told who serves a",
        "ublk device. No process is shown for a node that nbd-client has attached by netlink, since none has to stay",
        "for it, nor one in another PID namespace.",
      ].join(" "),
      [
        "A node whose server has ended stays for as long as something has it open: unmount it, then",
        '"tsbuse disconnect" it if it is still there. A node that was attached with --recover waits for',
        '"tsbuse recover" of the same device.',
      ].join(" "),
      [
        "--json prints an array with an object for each node: node, size and blockSize (bytes), readOnly,",
        "rotational, flush, fua, trim and writeZeroes (true or false), pid and command (null when no server",
        "is visible), waiting (true while a device waits for another server), identity (what such a server must have, or null), mounts, holders and partitions (arrays of text).",
      ].join(" "),
    ],
    examples: [
      { line: "tsbuse list", does: "what is attached, as a table" },
      {
        line: "tsbuse list --json | jq -r '.[].node'",
        does: "the paths of the attached nodes, for a program",
      },
    ],
  },
  { json: flag("Print a JSON array, sizes in bytes") },
  async (args) => {
    const ublk = await ublkNodes();
    const nodes = [...ublk.nodes, ...nbdNodes()];
    const attached = nodes.filter(isAttached);
    if (ublk.unknown !== undefined) log.warn(`not all is known of the ublk devices: ${ublk.unknown}`);
    if (args.json) return printResult(listJson(attached));
    if (attached.length > 0) return printResult(listTable(attached));
    log.info(nodes.length === 0 ? "nothing is attached: neither driver is loaded" : "nothing is attached");
    return 0;
  },
);

const HEADINGS = ["NODE", "SIZE", "BLOCK", "FLAGS", "PID", "MOUNTED/HELD", "COMMAND"] as const;
const RIGHT_ALIGNED: ReadonlySet<string> = new Set(["SIZE", "BLOCK", "PID"]);

/** Columns without blanks come first, so that `awk` can split them. The command is last and complete. */
export function listTable(nodes: readonly NodeState[]): string {
  const rows = [HEADINGS, ...nodes.map(cells)];
  const widths = HEADINGS.map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  const line = (row: readonly string[]): string =>
    row
      .map((cell, column) => pad(cell, widths[column] ?? 0, HEADINGS[column] ?? ""))
      .join("  ")
      .trimEnd();
  return rows.map(line).join("\n");
}

function pad(cell: string, width: number, heading: string): string {
  return RIGHT_ALIGNED.has(heading) ? cell.padStart(width) : cell.padEnd(width);
}

function cells(node: NodeState): string[] {
  const { path, size, blockSize, pid, mounts, holders } = node;
  return [
    path,
    formatSize(size).replace(" ", ""),
    String(blockSize),
    flagWords(node).join(",") || "-",
    pid === undefined ? "-" : String(pid),
    [...mounts, ...holders].map(printable).join(",") || "-",
    commandCell(node),
  ];
}

function flagWords(node: NodeState): string[] {
  const { readOnly, rotational, flush, fua, trim, writeZeroes } = node;
  const words = { ro: readOnly, rotational, flush, fua, trim, zeroes: writeZeroes };
  return Object.entries(words).flatMap(([word, on]) => (on ? [word] : []));
}

function commandCell({ name, pid, command: line, waiting, leftBehind, identity }: NodeState): string {
  if (pid !== undefined) return line === undefined ? "-" : printable(line);
  if (waiting) return `(waits for "tsbuse recover" of ${printable(identity ?? "an unknown device")})`;
  if (leftBehind) return "(left behind: its server is gone)";
  const owner = backendText(name);
  return owner === undefined
    ? "(no process is to be seen)"
    : `(of "${printable(owner)}", no process is to be seen)`;
}

/** Another process chose this text: it must neither break a line nor move the cursor. */
function printable(text: string): string {
  return text.replaceAll(/\p{Cc}/gu, " ");
}

export function listJson(nodes: readonly NodeState[]): string {
  const objects = nodes.map((node) => ({
    node: node.path,
    size: node.size,
    blockSize: node.blockSize,
    readOnly: node.readOnly,
    rotational: node.rotational,
    flush: node.flush,
    fua: node.fua,
    trim: node.trim,
    writeZeroes: node.writeZeroes,
    pid: node.pid ?? null,
    command: node.command ?? null,
    waiting: node.waiting,
    identity: node.identity ?? null,
    mounts: node.mounts,
    holders: node.holders,
    partitions: node.partitions,
  }));
  return JSON.stringify(objects, undefined, 2);
}
