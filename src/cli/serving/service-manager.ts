/** sd_notify(3): tells a service manager what this process is doing. */
import { sendDatagram } from "../../libc/socket.ts";
import { MessageQueue } from "../../serving/message-queue.ts";
import { errno } from "../../uapi/errno.ts";
import { log } from "../log.ts";

/** How long systemctl may take, in milliseconds. */
const ANSWER_LIMIT_MS = 5000;

let queue: MessageQueue | undefined;

/** Sends a datagram to the socket in $NOTIFY_SOCKET, if a service manager has set it. A busy manager gets it later. */
export function notifyServiceManager(state: string): void {
  const path = process.env["NOTIFY_SOCKET"];
  if (path === undefined || path === "") return;
  queue ??= new MessageQueue((message) => send(path, message), lost);
  queue.push(state);
}

/** Whether the system is about to shut down or reboot, according to this process's service manager. */
export async function isSystemStopping(): Promise<boolean> {
  if (!isService()) return false;
  try {
    const child = Bun.spawn(["systemctl", "is-system-running"], { stdin: "ignore", stderr: "ignore" });
    const timer = setTimeout(() => child.kill("SIGKILL"), ANSWER_LIMIT_MS);
    const state = await child.stdout.text();
    clearTimeout(timer);
    return state.trim() === "stopping";
  } catch {
    // The service manager is not systemd.
    return false;
  }
}

function isService(): boolean {
  return (process.env["NOTIFY_SOCKET"] ?? "") !== "";
}

function send(path: string, message: Uint8Array): number {
  const result = sendDatagram(path, message);
  if (result >= 0 || result === -errno.EAGAIN) return result;
  const state = new TextDecoder().decode(message);
  log.warn(`the service manager was not told "${state}": $NOTIFY_SOCKET does not answer`);
  return message.byteLength;
}

/** Two short messages are never lost. */
function lost(): string {
  return "STATUS=";
}
