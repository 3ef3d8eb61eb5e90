/**
 * A server that begins to take over a device and is killed: `bun half-handed-over.ts TARGET STEP`, where STEP is the
 * last step that it completes. Prints the previous server's answer to "release".
 */
import { writeSync } from "node:fs";
import { connectToServer } from "../../src/control/client.ts";

const [, , target = "", step] = process.argv;
const client = await connectToServer(target);
await client.ask("handover-begin", { protocol: 1 });
if (step === "release") {
  const { how } = await client.ask("handover-release", {}, 30_000);
  writeSync(1, String(how));
}
process.kill(process.pid, "SIGKILL");
