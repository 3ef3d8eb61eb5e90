import { askServer } from "../../control/client.ts";
import { UserError } from "../../errors.ts";
import { MARK_MAX } from "../../record/writer.ts";
import { command } from "../command.ts";
import { positional } from "../options/argument.ts";
import { UsageError } from "../usage-error.ts";

export default command(
  {
    name: "mark",
    summary: "Set a mark in the record of a device",
    synopsis: "TARGET TEXT",
    details: [
      'For a device that is served with "--layer record". Set a mark when something has been made durable, by fsync or COMMIT: "tsbuse crash" gives a checker the last one before the power failed, so that it knows what must be there.',
    ],
    examples: [{ line: "tsbuse mark /dev/ublkb0 'order 17'", does: "order 17 has been acknowledged" }],
  },
  {
    target: positional("What the device was attached to, as the command printed it"),
    text: positional(`Up to ${MARK_MAX} bytes`),
  },
  async ({ target, text }) => {
    if (Buffer.byteLength(text) > MARK_MAX)
      throw new UsageError(`a mark has up to ${MARK_MAX} bytes: give a shorter one`);
    const { records } = await askServer(target, "mark", { text });
    if (records !== 0) return 0;
    throw new UserError(
      `${target} has no record, or one that has ended: serve it with --layer record:file=FILE`,
    );
  },
);
