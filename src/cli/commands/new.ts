import { writeStarter } from "../../module/starter/starter.ts";
import { command } from "../command.ts";
import { printResult } from "../log.ts";
import { positional } from "../options/argument.ts";
import { shellWord } from "../text.ts";

export default command(
  {
    name: "new",
    summary: "Begin a device of your own",
    synopsis: "NAME",
    details: [
      "Writes a directory NAME, which must not exist, with device.ts, a disk in memory to begin with, and tsbuse.d.ts and tsconfig.json, from which an editor knows the types with nothing installed. Prints the command that runs it.",
    ],
    examples: [{ line: "tsbuse new mydisk", does: "mydisk/device.ts and its types" }],
  },
  { name: positional("The directory to make") },
  (args) => printResult(`sudo tsbuse run ${shellWord(writeStarter(args.name))} auto --watch`),
);
