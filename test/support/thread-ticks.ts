/** How much the threads of a process have run. */
import { readdirSync, readFileSync } from "node:fs";

/** Clock ticks that each thread of a process has run, in user and kernel mode: proc_pid_stat(5). */
export function threadTicks(pid: number): { readonly thread: string; readonly ticks: number }[] {
  return readdirSync(`/proc/${pid}/task`).map((thread) => {
    const stat = readFileSync(`/proc/${pid}/task/${thread}/stat`, "utf8");
    const fields = stat.split(") ")[1]?.split(" ") ?? [];
    return { thread, ticks: Number(fields[11]) + Number(fields[12]) };
  });
}
