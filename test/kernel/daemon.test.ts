/** Goal: a daemon outlives the process that started it, its terminal, and the root in which it was started. */
import { afterEach, expect, test } from "bun:test";
import { existsSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { BINARY, untilFree } from "../support/server.ts";
import { run, sh, until } from "../support/shell.ts";

const PID_FILE = "/run/tsbuse.pid";
const NEW_ROOT = "/mnt/new-root";

afterEach(async () => {
  if (existsSync(PID_FILE)) {
    const pid = daemonPid();
    if (existsSync(`/proc/${pid}`)) process.kill(pid, "SIGKILL");
    await until("the daemon has ended", () => !existsSync(`/proc/${pid}`));
    await sh(`rm -f ${PID_FILE}`);
  }
  await untilFree("nbd0");
});

function daemonPid(): number {
  return Number(readFileSync(PID_FILE, "utf8"));
}

async function startDaemon(...options: readonly string[]): Promise<number> {
  const words = ["ramdisk", "64M", "/dev/nbd0", "--pid-file", PID_FILE, ...options];
  expect(await run([BINARY, ...words])).toEqual({ status: 0, stdout: "/dev/nbd0\n", stderr: "" });
  return daemonPid();
}

function commandLine(pid: number): string[] {
  return readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
}

/** Whether it still answers requests: tries a direct read, which bypasses the cache. */
function serves(): Promise<string> {
  return sh("dd if=/dev/nbd0 of=/dev/null bs=4k count=1 iflag=direct status=none");
}

test("--daemon: SIGHUP is ignored and logged, SIGTERM ends it", async () => {
  const pid = await startDaemon("--daemon");
  expect(commandLine(pid)[0]).not.toStartWith("@");
  expect(readFileSync(`/proc/${pid}/oom_score_adj`, "utf8").trim()).toBe("-1000");
  process.kill(pid, "SIGHUP");
  // Nothing listens on /dev/log in the guest, so the message goes to the kernel's log.
  await until("it is logged", async () =>
    (await sh("dmesg")).includes(`tsbuse[${pid}]: SIGHUP ignored: SIGTERM ends a daemon`),
  );
  await serves();
  process.kill(pid, "SIGTERM");
  await until("the daemon has ended", () => !existsSync(`/proc/${pid}`) && !existsSync(PID_FILE));
});

test("the end of the shell and of its terminal is not the daemon's", async () => {
  // setsid makes the shell the leader of a session with the terminal of script(1).
  await sh(
    `script -qec "${BINARY} ramdisk 64M /dev/nbd0 --daemon --pid-file ${PID_FILE}" /dev/null </dev/null`,
  );
  const pid = daemonPid();
  expect(readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ")[4], "terminal").toBe("0");
  await serves();
});

test("--initrd: its name, and what it holds open and mapped", async () => {
  const pid = await startDaemon("--initrd");
  expect(commandLine(pid).slice(0, 4)).toEqual(["@tsbuse", "ramdisk", "64M", "/dev/nbd0"]);
  const open = readdirSync(`/proc/${pid}/fd`).map((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`));
  // Sockets, the runtime's own, and only one file: the one that says who serves the node, which moves along with /run.
  const files = open.filter((target) => !/^(socket|pipe|anon_inode):/.test(target));
  expect(files.filter((path) => !["/dev/null", "/run/tsbuse/nbd0"].includes(path))).toEqual([]);
  expect([readlinkSync(`/proc/${pid}/cwd`), readlinkSync(`/proc/${pid}/root`)]).toEqual(["/", "/"]);
  const mapped = new Set(
    readFileSync(`/proc/${pid}/maps`, "utf8")
      .split("\n")
      .map((line) => line.split(/\s+/)[5] ?? ""),
  );
  const programs = [...mapped].filter((path) => path.startsWith("/"));
  expect(
    programs.filter((path) => path !== BINARY && !/\/(ld-linux|lib(c|dl|m|pthread))[^/]*$/.test(path)),
  ).toEqual([]);
});

/**
 * Runs a script after switching roots as switch_root(8) does, in a separate mount namespace. `before` runs there in the
 * old root.
 * @param mountRoot mounts the new root.
 */
function inNewRoot(before: string, mountRoot: string, script: string) {
  const libraries = "$(ldd $binary | grep -o '/[^ ]*')";
  return run([
    "unshare",
    "-m",
    "/bin/sh",
    "-ec",
    `binary=${BINARY}
    ${before}
    mkdir -p ${NEW_ROOT}; ${mountRoot}
    cd ${NEW_ROOT}; mkdir proc sys dev run bin
    cp /bin/busybox bin/; cp --parents ${libraries} .; cp $binary bin/tsbuse; [ -e lib64 ] || ln -s usr/lib64 lib64
    for name in proc sys dev run; do mount --move /$name $name; done
    mount --move . /
    exec chroot . /bin/busybox sh -euc '${script}'`,
  ]);
}

const START = `$binary ramdisk 512M /dev/nbd0 --initrd --pid-file ${PID_FILE} >/dev/null`;
const TMPFS = `mount -t tmpfs none ${NEW_ROOT}`;
const GONE = `
  n=0; while [ -e /proc/$pid ] && [ $n -lt 100 ]; do busybox sleep 0.1; n=$((n + 1)); done
  if [ -e /proc/$pid ]; then echo "still there"; fi; busybox ls /run; cat /sys/block/nbd0/size`
  .replaceAll("busybox", "/bin/busybox")
  .replaceAll("cat", "/bin/busybox cat");

test.each([
  ["SIGTERM", "echo hello >/dev/nbd0; kill $pid"],
  ['"tsbuse disconnect"', "/bin/tsbuse disconnect /dev/nbd0"],
])("after switch_root: %s writes back and ends it, and its PID file goes", async (_, end) => {
  const script = `pid=$(/bin/busybox cat ${PID_FILE}); ${end}; ${GONE}`;
  const { status, stdout, stderr } = await inNewRoot(START, TMPFS, script);
  expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
  expect(stdout.split("\n")).not.toContain("tsbuse.pid");
  expect(stdout).not.toContain("still there");
  expect(stdout).toEndWith("\n0\n");
});

/** The names of the signals that it reports as ignored, once it has reported all three. */
const IGNORED = `
  for look in $(busybox seq 100); do
    ignored=$(busybox dmesg | busybox sed -n "s|.*tsbuse.$pid.: \\(SIG[A-Z]*\\) ignored: .*|\\1|p")
    ignored=$(for name in $ignored; do echo $name; done | busybox sort -u)
    if [ "$(echo $ignored)" = "SIGHUP SIGINT SIGTERM" ]; then break; fi
    busybox sleep 0.1
  done
  echo $ignored`.replaceAll("busybox", "/bin/busybox");

test("with the root on its device, it goes on serving and ignores every signal that can be", async () => {
  const end = await inNewRoot(
    START,
    `mkfs.ext4 -q /dev/nbd0; mount /dev/nbd0 ${NEW_ROOT}`,
    `pid=$(/bin/busybox cat ${PID_FILE})
    for signal in TERM INT HUP TERM; do kill -$signal $pid; done
    ${IGNORED}
    echo kept >/file; /bin/busybox sync; echo 3 >/proc/sys/vm/drop_caches
    /bin/busybox cat /file; /bin/busybox grep " / " /proc/mounts`,
  );
  expect(end.stderr).toBe("");
  expect(end.stdout).toMatch(/^SIGHUP SIGINT SIGTERM\nkept\n\/dev\/nbd0 \/ ext4 .*\n$/);
});
