/** Goal: even a device that misbehaves ends when it is told to, and leaves its node free. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { closeSync, existsSync, openSync, writeSync } from "node:fs";
import { attach } from "tsbuse";
import { AsyncStore } from "../support/async-devices.ts";
import { userFailure } from "../support/failure.ts";
import { writeFiles } from "../support/files.ts";
import { BINARY, endServers, Server, startWith } from "../support/server.ts";
import { run, sh, until } from "../support/shell.ts";
import { STUBBORN, type Way } from "../support/stubborn.ts";
import { ALL_TRANSPORTS, TestNode } from "../support/transports.ts";

const DIRECTORY = "/mnt/stop";
const CALLED = `${DIRECTORY}/called`;

describe.each(ALL_TRANSPORTS)("$name", (transport) => {
  const disk = new TestNode(transport, 0);
  const node = disk.path;
  let module: string;

  beforeEach(async () => {
    startWith(transport.words);
    await sh(`rm -rf ${DIRECTORY}; mkdir -p ${DIRECTORY} /mnt/fs`);
    module = writeFiles(DIRECTORY, { "disk.ts": STUBBORN });
  });
  afterEach(async () => {
    startWith([]);
    await endServers();
    await sh("umount /mnt/fs 2>/dev/null || true");
    await disk.untilFree();
  });

  function start(method: string, how: Way, ...words: string[]): Promise<Server> {
    const options = [`method=${method}`, `how=${how}`, `log=${CALLED}`];
    return Server.start("run", module, node, ...words, "--", ...options);
  }

  // What hangs, how, and the process's last message. On a busy machine the kernel may be quicker.
  const HUNG: readonly (readonly [string, Way, RegExp])[] = [
    [
      "flush",
      "promise",
      /was cut off( before the last flush was done| with \d+ requests? in flight|, since the)/,
    ],
    ["flush", "loop", /was cut off, since the program was held up/],
    ["write", "promise", /was cut off( with \d+ requests? in flight|, since the)/],
    ["write", "loop", /was cut off, since the program was held up/],
    ["write", "wait", /was cut off, since the program was held up/],
    ["close", "promise", /all data was written, but the device has not closed in time/],
  ];

  test.each(HUNG)(
    "a %s that hangs by a %s: two signals end it, with status 1 and a line",
    async (method, how, said) => {
      const server = await start(method, how);
      const fd = openSync(node, "r+");
      // Goes to the page cache: the device gets it when the server writes back.
      writeSync(fd, new Uint8Array(65_536));
      try {
        process.kill(server.pid, "SIGTERM");
        await until("the device has been asked", () => existsSync(CALLED));
        expect(await server.stop("SIGTERM", 10_000)).toBe(1);
        expect(await server.errors).toMatch(said);
      } finally {
        closeSync(fd);
      }
    },
  );

  test("--stop-timeout ends it as well, also while it is mounted", async () => {
    const server = await start("trim", "promise", "--stop-timeout", "2");
    await sh(`mkfs.ext4 -q -K ${node}; mount ${node} /mnt/fs`);
    const trim = run(["fstrim", "/mnt/fs"]);
    await until("the device has been asked", () => existsSync(CALLED));
    expect(await server.stop("SIGTERM")).toBe(1);
    expect(await server.errors).toMatch(/was cut off with \d+ requests? in flight/);
    await trim;
  });

  test("a flush that fails at the end is the end's failure", async () => {
    const server = await start("flush", "error");
    expect(await server.stop("SIGTERM")).toBe(1);
    expect(await server.errors).toMatch(
      /the last flush failed \(Input\/output error\)|not all data could be written back/,
    );
  });

  test("a device that does not answer the first read: a signal ends the start", async () => {
    const words = ["run", module, node, "--", "method=read", "how=promise", `log=${CALLED}`];
    const starting = Bun.spawn([BINARY, ...words], { stdio: ["ignore", "pipe", "pipe"] });
    await until("the device has been asked", () => existsSync(CALLED));
    starting.kill("SIGTERM");
    expect(await starting.exited).toBe(1);
    expect(await starting.stderr.text()).toContain(`${node} was stopped before it could be used`);
    expect(await starting.stdout.text()).toBe("");
  });

  test("close() of a program: twice at once, after somebody else has disconnected it, and of a device that hangs", async () => {
    const store = new AsyncStore(2 ** 20);
    const first = await attach(store, node);
    await Promise.all([first.close(), first.close()]);
    const second = await attach(store, node);
    expect((await run([BINARY, "disconnect", node])).status).toBe(0);
    await second.close();
    // The current device is no longer its own.
    const third = await attach(store, node);
    await second.close();
    await sh(`dd if=${node} of=/dev/null bs=4k count=1 iflag=direct status=none`);
    store.hold = () => new Promise(() => undefined);
    expect(await userFailure(third.close({ timeoutMs: 100 }))).toContain(`${node} was cut off`);
  });
});
