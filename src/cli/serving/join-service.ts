/**
 * A process that takes a device over from a service becomes the main process of that service. The previous process
 * tells the manager (MAINPID= of sd_notify(3)), which looks for the new one in the service's control group. So the new
 * one moves there.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { messageOf } from "../../errors.ts";
import { log } from "../log.ts";

const ROOT = "/sys/fs/cgroup";

/**
 * Does nothing if this process belongs to another service.
 * @param notifySocket of the service manager.
 * @param pid of the service's main process.
 */
export function joinService(notifySocket: string, pid: number): void {
  if ((process.env["NOTIFY_SOCKET"] ?? "") !== "") return;
  process.env["NOTIFY_SOCKET"] = notifySocket;
  try {
    // The cgroup of version 2: its line has neither a number nor controllers.
    const group = groupOf(pid);
    if (group !== undefined && group !== groupOf(process.pid))
      writeFileSync(`${ROOT}${group}/cgroup.procs`, String(process.pid));
  } catch (error) {
    log.warn(
      `the control group of process ${pid}, a service, cannot be joined (${messageOf(error)}): restart the service when you can`,
    );
  }
}

function groupOf(pid: number): string | undefined {
  return /^0::(\/.*)$/m.exec(readFileSync(`/proc/${pid}/cgroup`, "utf8"))?.[1];
}
