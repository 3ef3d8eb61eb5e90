import { command } from "../command.ts";
import { allCommands } from "../commands.ts";
import { manPage } from "../help/man-page.ts";
import { printResult } from "../log.ts";

export default command(
  {
    name: "man",
    summary: "Print the manual page",
    synopsis: "",
    details: ["The page is tsbuse(1), in the language of man(7)."],
    examples: [
      { line: "tsbuse man | man -l -", does: "read the manual page" },
      {
        line: "tsbuse man | sudo tee /usr/local/share/man/man1/tsbuse.1 >/dev/null",
        does: "install the manual page",
      },
    ],
  },
  {},
  async () => printResult(manPage(await allCommands())),
);
