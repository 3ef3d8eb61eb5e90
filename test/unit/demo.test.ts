/** The picture of the demo shows the session as it is now: when the session changes, "scripts/demo --record" is due. */
import { expect, test } from "bun:test";
import { drawTerminal } from "../../scripts/lib/terminal.ts";
import { readPage } from "../support/pages.ts";

/** The demo's node in the virtual machine. */
const NODE = "/dev/nbd0";

/** The lines of a picture as printed. */
function linesIn(picture: string): string[] {
  const lines = picture.matchAll(/<text [^>]*>([^<]*)<\/text>/g);
  return [...lines].map(([, line = ""]) => line.replaceAll("&lt;", "<").replaceAll("&amp;", "&"));
}

test("the picture shows the commands of the session, and that it ended well", () => {
  const session = readPage("scripts/lib/demo-session.sh");
  const typed = [...session.matchAll(/^type_(?:command|and_run) (["'])(.+)\1$/gm)];
  const commands = typed.map(([, , command = ""]) => `$ ${command.replaceAll("$node", NODE)}`);
  const shown = linesIn(readPage("docs/demo.svg"));
  expect(shown.filter((line) => line.startsWith("$ "))).toEqual(commands);
  expect(commands).toContain(`$ mkfs.ext4 -q ${NODE}`);
  expect(session).toContain(shown.at(-1) ?? "");
});

test("a picture is what was printed, character by character, and nothing from elsewhere", () => {
  const printed = ["$ a <b && c", "x   y &lt;", "$ d", "last"];
  const picture = drawTerminal(`\n${printed.join("\n\n")}\n`, "label");
  expect(linesIn(picture)).toEqual(printed);
  for (const one of [picture, readPage("docs/demo.svg")]) {
    expect(one).toContain(`xml:space="preserve"`);
    // A control character makes the file invalid.
    expect(one).not.toMatch(/[^\P{Cc}\n]/u);
    expect(one.replace("http://www.w3.org/2000/svg", "")).not.toMatch(/https?:|@import|<script|url\(/);
  }
});
