/** A real object store: Ceph's gateway with one monitor and one disk in memory, on loopback. */
import { randomUUID } from "node:crypto";
import { mkdirSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { until } from "./shell.ts";
import { TemporaryDirectory } from "./temporary.ts";

const ACCESS_KEY = "tsbusetestkey";
const SECRET_KEY = "tsbusetestsecret";
const REGION = "us-east-1";
const MEMORY_BYTES = 4 * 2 ** 30;
const START_MS = 120_000;

export class ObjectStoreServer {
  readonly #directory = new TemporaryDirectory();
  readonly #daemons: Bun.Subprocess[] = [];
  endpoint = "";

  private constructor(readonly limitMs: number) {}

  /** @param limitMs the time limit of each step. */
  static async start(limitMs = START_MS): Promise<ObjectStoreServer> {
    const server = new ObjectStoreServer(limitMs);
    try {
      await server.#start();
    } catch (error) {
      await server[Symbol.asyncDispose]();
      throw error;
    }
    return server;
  }

  /** The variables from which a client takes its credentials. */
  get environment(): Record<string, string> {
    return {
      AWS_ACCESS_KEY_ID: ACCESS_KEY,
      AWS_SECRET_ACCESS_KEY: SECRET_KEY,
      AWS_ENDPOINT: this.endpoint,
      AWS_REGION: REGION,
    };
  }

  async makeBucket(name: string): Promise<void> {
    const client = new Bun.S3Client({
      accessKeyId: ACCESS_KEY,
      secretAccessKey: SECRET_KEY,
      region: REGION,
      endpoint: this.endpoint,
      // Then the signature covers the path unchanged, which is that of the bucket.
      virtualHostedStyle: true,
    });
    const response = await fetch(client.presign(name, { method: "PUT" }), { method: "PUT" });
    if (!response.ok) throw new Error(`bucket ${name}: status ${response.status}: ${await response.text()}`);
  }

  /** Makes the gateway accept connections, but answer nothing until {@link resume}. */
  pause(): void {
    this.#daemons.at(-1)?.kill("SIGSTOP");
  }

  resume(): void {
    this.#daemons.at(-1)?.kill("SIGCONT");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const daemon of this.#daemons.toReversed()) daemon.kill("SIGKILL");
    await Promise.all(this.#daemons.map(({ exited }) => exited));
    this.#directory[Symbol.dispose]();
  }

  async #start(): Promise<void> {
    const [monitor, gateway] = [await freePort(), await freePort()];
    const id = randomUUID();
    const config = this.#directory.join("ceph.conf");
    for (const name of ["mon", "osd", "rgw", "run"]) mkdirSync(this.#directory.join(name));
    writeFileSync(config, configuration(this.#directory.path, id, monitor, gateway));
    const run = (command: string, ...words: string[]): void => this.#run([command, "-c", config, ...words]);
    const map = this.#directory.join("monmap");
    this.#run(["monmaptool", "--create", "--fsid", id, "--addv", "a", `[v1:127.0.0.1:${monitor}]`, map]);
    run("ceph-mon", "--mkfs", "-i", "a", "--monmap", map);
    this.#daemon(["ceph-mon", "-c", config, "-i", "a", "-f"]);
    const disk = randomUUID();
    const patiently = ["--connect-timeout", `${this.limitMs / 1000}`];
    run("ceph", ...patiently, "osd", "new", disk);
    // Left to itself, it sometimes asks before it knows the cluster's name, and ends.
    run("ceph", ...patiently, "osd", "crush", "add", "osd.0", "1", "root=default");
    run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", disk);
    this.#daemon(["ceph-osd", "-c", config, "-i", "0", "-f"]);
    const user = ["user", "create", "--uid=test", "--display-name=test"];
    run("radosgw-admin", ...user, `--access-key=${ACCESS_KEY}`, `--secret-key=${SECRET_KEY}`);
    this.#daemon(["radosgw", "-c", config, "-n", "client.rgw", "-f"]);
    this.endpoint = `http://127.0.0.1:${gateway}`;
    const isReady = async () => (await fetch(this.endpoint).catch(() => undefined))?.ok === true;
    await until("the object store answers", isReady, this.limitMs);
  }

  #daemon(command: readonly string[]): void {
    const output = Bun.file(this.#directory.join(`${command[0]}.out`));
    this.#daemons.push(
      Bun.spawn([...command, "--setuser", "root", "--setgroup", "root"], {
        stdio: ["ignore", output, output],
      }),
    );
  }

  #run(command: readonly string[]): void {
    const { exitCode, stderr } = Bun.spawnSync([...command], {
      stdio: ["ignore", "ignore", "pipe"],
      timeout: this.limitMs,
    });
    if (exitCode !== 0) throw new Error(`${command.join(" ")}: ${stderr.toString()}`);
  }
}

function configuration(directory: string, id: string, monitor: number, gateway: number): string {
  return `[global]
fsid = ${id}
mon initial members = a
mon host = v1:127.0.0.1:${monitor}
auth cluster required = none
auth service required = none
auth client required = none
osd pool default size = 1
osd pool default min size = 1
mon allow pool size one = true
mon warn on pool no redundancy = false
osd crush chooseleaf type = 0
osd crush update on start = false
osd class update on start = false
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
mon max pg per osd = 1000
osd max object name len = 256
osd max object namespace len = 64
ms bind msgr2 = false
ms bind ipv6 = false
osd objectstore = memstore
memstore device bytes = ${MEMORY_BYTES}
run dir = ${directory}/run
log file = ${directory}/run/$name.log
admin socket = ${directory}/run/$name.asok
pid file = ${directory}/run/$name.pid
mon data = ${directory}/mon
osd data = ${directory}/osd
rgw data = ${directory}/rgw
keyring = ${directory}/keyring
[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:${gateway} tcp_nodelay=1
rgw gc obj min wait = 2
rgw gc processor period = 5
rgw gc processor max time = 5
`;
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.on("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() => resolve(typeof address === "object" && address !== null ? address.port : 0));
    });
  });
}
