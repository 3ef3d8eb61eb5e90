import { type Summary, summarize, type Tally } from "../../../devices/bucket/summary.ts";
import { ACCESS, storeAt, URI } from "../bucket/access.ts";
import { command } from "../command.ts";
import { printResult } from "../log.ts";
import { flag } from "../options/argument.ts";
import { formatSize } from "../text.ts";

export default command(
  {
    name: "bucket-list",
    summary: "Show a disk in a bucket, its space and its snapshots",
    synopsis: "URI",
    details: [
      'URI is that of "tsbuse bucket". The disk may be attached; nothing is changed, and read access is enough. It takes as long as attaching the disk, and a listing of its objects.',
      'DATA is what blocks in use amount to. The other sizes are those of objects, compressed: "live" hold some of the disk\'s data, "kept" are there for snapshots, --keep and readers alone, and "garbage" goes with the owner\'s next checkpoint. A disk in use also has some garbage in live objects: the owner rewrites the emptiest when it exceeds 30 %.',
      "The owner is the last process that has attached the disk. Whether it still runs cannot be told from here, unless it has detached the disk.",
      "--json prints an object: id, size, data, created, number and oldest (of the log: the newest state, and the oldest that --at shows, with its time, or null), keepSeconds, owner (name, since, detached, or null), stored, live, kept and garbage (objects, bytes), snapshots (name, number, time, data, clone: the prefix of the clone that needs it, or null), and origins (the prefixes that a clone shares objects with). Sizes are in bytes, times in ISO 8601.",
    ],
    examples: [
      { line: "tsbuse bucket-list s3://backup/db", does: "the disk and its snapshots" },
      {
        line: "tsbuse bucket-list s3://backup/db --json | jq .garbage.bytes",
        does: "what the next checkpoint frees",
      },
    ],
  },
  { uri: URI, json: flag("Print a JSON object, sizes in bytes"), ...ACCESS },
  async ({ uri, json, ...access }) => {
    const summary = await summarize(storeAt(uri, access));
    return printResult(json ? summaryJson(summary) : summaryText(summary));
  },
);

export function summaryText(summary: Summary): string {
  const { size, live, created, owner, number, oldest, keepMs, stored, segments, snapshots } = summary;
  const past = oldest === undefined ? "the next checkpoint" : `${oldest.number}, ${timeText(oldest.time)}`;
  const keep = keepMs === 0 ? "" : `, --keep ${keepMs / 1000}s`;
  const state = owner?.hasEnded === true ? "detached" : "attached, or killed";
  const lines = [
    ["size", `${formatSize(size)}, made ${timeText(created)}`],
    ["data", formatSize(live)],
    ["stored", tallyText(stored)],
    ["live", tallyText(segments.live)],
    ["kept", tallyText(segments.kept)],
    ["garbage", tallyText(segments.garbage)],
    ["owner", owner === undefined ? "none yet" : `${owner.name} since ${timeText(owner.since)}, ${state}`],
    ["log", `number ${number}, --at from ${past}${keep}`],
  ];
  if (summary.origins.length > 0) lines.push(["clone of", summary.origins.join(", ")]);
  for (const snapshot of snapshots) {
    const what = `number ${snapshot.number}, ${timeText(snapshot.time)}, ${formatSize(snapshot.live)}`;
    const clone = snapshot.clone === undefined ? "" : `, for the clone at ${snapshot.clone}`;
    lines.push(["snapshot", `${snapshot.name}: ${what}${clone}`]);
  }
  return lines.map(([name = "", value]) => `${name.padEnd(10)}${value}`).join("\n");
}

export function summaryJson(summary: Summary): string {
  const { owner, oldest, keepMs, segments } = summary;
  const object = {
    id: summary.id,
    size: summary.size,
    data: summary.live,
    created: timeText(summary.created),
    number: summary.number,
    oldest: oldest === undefined ? null : { number: oldest.number, time: timeText(oldest.time) },
    keepSeconds: keepMs / 1000,
    owner:
      owner === undefined
        ? null
        : { name: owner.name, since: timeText(owner.since), detached: owner.hasEnded },
    stored: summary.stored,
    ...segments,
    snapshots: summary.snapshots.map(({ name, number, time, live, clone = null }) => ({
      name,
      number,
      time: timeText(time),
      data: live,
      clone,
    })),
    origins: summary.origins,
  };
  return JSON.stringify(object, undefined, 2);
}

function tallyText({ objects, bytes }: Tally): string {
  return `${formatSize(bytes)} in ${objects} ${objects === 1 ? "object" : "objects"}`;
}

/** `2026-01-31T12:00:00.000Z`, as --at takes it. */
function timeText(ms: number): string {
  return new Date(ms).toISOString();
}
