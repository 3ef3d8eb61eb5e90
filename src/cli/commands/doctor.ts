import { command } from "../command.ts";
import type { Check, Status } from "../doctor/check.ts";
import { runChecks } from "../doctor/checks.ts";
import { readFacts } from "../doctor/facts.ts";
import { printResult } from "../log.ts";
import { flag } from "../options/argument.ts";

export default command(
  {
    name: "doctor",
    summary: "Check whether devices can be attached here",
    synopsis: "",
    details: [
      [
        "A line for each check, and below it the remedy if something needs fixing: ok,",
        "warn (it works, with limits) or FAIL (no device can be attached). Changes nothing.",
        "The exit status is 1 when something fails.",
      ].join(" "),
      [
        "--json prints an array with an object for each check: name, status (ok, warn or fail), finding, and",
        "remedy unless the status is ok.",
      ].join(" "),
    ],
    examples: [
      { line: "sudo tsbuse doctor", does: "all checks, as the user who will attach devices" },
      {
        line: `tsbuse doctor --json | jq '.[] | select(.status == "fail")'`,
        does: "what is in the way, for a program",
      },
    ],
  },
  { json: flag("Print a JSON array") },
  async (args) => {
    const checks = runChecks(await readFacts());
    const printed = printResult(args.json ? JSON.stringify(checks, undefined, 2) : doctorReport(checks));
    return checks.some(({ status }) => status === "fail") ? 1 : printed;
  },
);

const WORDS: Readonly<Record<Status, string>> = { ok: "ok  ", warn: "warn", fail: "FAIL" };

export function doctorReport(checks: readonly Check[]): string {
  const lines = checks.flatMap(({ name, status, finding, remedy }) => [
    `${WORDS[status]}  ${name}: ${finding}`,
    ...(remedy === undefined ? [] : [`      remedy: ${remedy}`]),
  ]);
  return lines.join("\n");
}
