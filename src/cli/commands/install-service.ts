import { UserError } from "../../errors.ts";
import { isUblkTarget } from "../../ublk/nodes.ts";
import { command } from "../command.ts";
import { log, printResult } from "../log.ts";
import { flag, positional } from "../options/argument.ts";
import { splitAtRest } from "../options/words.ts";
import { install, isInstalled, remove } from "../service/system.ts";
import { unitName, unitText } from "../service/unit.ts";
import { planWords } from "../service/words.ts";
import { UsageError } from "../usage-error.ts";

export default command(
  {
    name: "install-service",
    summary: "Serve a device as a service of systemd",
    synopsis: "NAME",
    rest: "DEVICE TARGET",
    details: [
      "Writes /etc/systemd/system/tsbuse-NAME.service, which serves a device from the boot on, and rules for udev that give ublk devices the same links as other disks, such as /dev/disk/by-uuid. After -- comes the command that attaches the device; file names become absolute, except among the options of a module. TARGET is a node with a number, or a socket. Run it again with the same NAME to replace the service.",
      'A mount of the device in /etc/fstab needs no options of its own. At shutdown it is unmounted before the service is stopped. Give --recover: a server that was killed is started again, and "systemctl restart" is a pause for those who use the device. Without it they get errors.',
      '"systemctl stop" removes the device if nobody uses it; otherwise the device and its users wait until the service is started.',
    ],
    examples: [
      {
        line: "sudo tsbuse install-service data -- loop /srv/disk.img /dev/ublkb0 --recover",
        does: "tsbuse-data.service, enabled; the command that starts it is printed",
      },
      { line: "sudo tsbuse install-service data --remove", does: "stop it, and take it away" },
    ],
  },
  {
    name: positional("What the service is called"),
    remove: flag("Stop the service and remove it, if nobody uses its device"),
  },
  async ({ name, ...args }, words) => {
    const unit = unitName(name);
    if (unit === undefined)
      throw new UsageError(`"${name}" is not a valid service name: give one without "/"`);
    const served = splitAtRest(words).rest.slice(1);
    if (args.remove) {
      if (served.length > 0) throw new UsageError("--remove takes the name alone: leave out what follows");
      for (const path of await remove(unit)) log.info(`removed ${path}`);
      return 0;
    }
    const plan = { name, ...(await planWords(served)), program: ownProgram() };
    const verb = isInstalled(unit) ? "restart" : "start";
    for (const path of install(unit, unitText(plan))) log.info(`wrote ${path}`);
    if (isUblkTarget(plan.target) && !plan.words.includes("--recover"))
      log.warn(
        "without --recover those who use the device get errors when its server ends or is started anew",
      );
    return printResult(`sudo systemctl ${verb} ${unit.replaceAll("\\", "\\\\")}`);
  },
);

/** @throws UserError when this is not a compiled program. */
function ownProgram(): string {
  if (process.argv[1]?.startsWith("/$bunfs/") === true) return process.execPath;
  throw new UserError("a service needs the compiled program: build it, and run that");
}
