import { command } from "../command.ts";
import { allCommands } from "../commands.ts";
import { bashCompletion } from "../help/completions/bash.ts";
import { fishCompletion } from "../help/completions/fish.ts";
import { zshCompletion } from "../help/completions/zsh.ts";
import { printResult } from "../log.ts";
import { positional } from "../options/argument.ts";
import { UsageError } from "../usage-error.ts";

const SHELLS = { bash: bashCompletion, zsh: zshCompletion, fish: fishCompletion } as const;

export default command(
  {
    name: "completions",
    summary: "Print a completion script for a shell",
    synopsis: "SHELL",
    details: ["The script says in its first lines where it can be put."],
    examples: [
      {
        line: "source <(tsbuse completions bash)",
        does: "completion in this shell, bash; likewise with zsh",
      },
      { line: "tsbuse completions fish | source", does: "completion in this shell, fish" },
    ],
  },
  {
    shell: positional("bash, zsh or fish", { words: Object.keys(SHELLS) }),
  },
  async ({ shell }) => {
    if (!isShell(shell))
      throw new UsageError(`"${shell}" is not a shell that is known: give bash, zsh or fish`);
    return printResult(SHELLS[shell](await allCommands()));
  },
);

function isShell(name: string): name is keyof typeof SHELLS {
  return Object.hasOwn(SHELLS, name);
}
