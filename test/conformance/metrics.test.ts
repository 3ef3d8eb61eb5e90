/** Goal: Prometheus accepts our metrics: its checker has no complaint, and the real server scrapes them. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { Server } from "../support/server.ts";
import { run, until } from "../support/shell.ts";
import { TemporaryDirectory } from "../support/temporary.ts";

const MAIN = [process.execPath, join(import.meta.dir, "../../src/main.ts")];
const READS = 25;
const LIMIT_MS = 60_000;

const directory = new TemporaryDirectory();
const PORT = freePort();
let server: Server;

/** Nothing listens there at first. */
function freePort(): number {
  using listener = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data: () => undefined } });
  return listener.port;
}

beforeAll(async () => {
  const target = `unix:${directory.join("disk.sock")}`;
  server = await Server.startBy(MAIN, ["ramdisk", "4M", target, "--metrics", `:${PORT}`]);
  const reads = Array.from({ length: READS }, (_, index) => ["-c", `read ${index * 4096} 4096`]).flat();
  expect(await run(["qemu-io", "-r", "-f", "raw", ...reads, server.path])).toMatchObject({ status: 0 });
}, LIMIT_MS);

afterAll(async () => {
  await server.stop();
  directory[Symbol.dispose]();
}, LIMIT_MS);

test("promtool finds nothing to say of them", async () => {
  const file = directory.join("metrics.txt");
  await Bun.write(file, await fetch(`http://127.0.0.1:${PORT}/metrics`));
  expect(await run(["sh", "-c", `promtool check metrics <${file}`])).toEqual({
    status: 0,
    stdout: "",
    stderr: "",
  });
});

test(
  "prometheus has what was read, and how long it took",
  async () => {
    const own = freePort();
    const configuration = directory.join("prometheus.yml");
    const job = {
      job_name: "tsbuse",
      scrape_interval: "1s",
      static_configs: [{ targets: [`127.0.0.1:${PORT}`] }],
    };
    // JSON is YAML.
    writeFileSync(configuration, JSON.stringify({ scrape_configs: [job] }));
    const words = [
      `--config.file=${configuration}`,
      `--storage.tsdb.path=${directory.join("data")}`,
      `--web.listen-address=127.0.0.1:${own}`,
    ];
    const prometheus = Bun.spawn(["prometheus", ...words], { stdio: ["ignore", "ignore", "ignore"] });
    const ask = async (query: string): Promise<string | undefined> => {
      const url = `http://127.0.0.1:${own}/api/v1/query?query=${encodeURIComponent(query)}`;
      const answer = await fetch(url).then(
        (response) => response.text(),
        () => "",
      );
      return /"value":\[[\d.]+,"([^"]*)"\]/.exec(answer)?.[1];
    };
    try {
      let reads: string | undefined;
      const deadline = performance.now() + LIMIT_MS / 2;
      while (reads === undefined && performance.now() < deadline) {
        await Bun.sleep(100);
        reads = await ask('tsbuse_requests_total{command="read"}');
      }
      expect(Number(reads)).toBeGreaterThanOrEqual(READS);
      const device = `device=${JSON.stringify(server.path)}`;
      expect(await ask(`tsbuse_request_queue_seconds_count{command="read",${device}}`)).toBe(reads);
      expect(await ask(`tsbuse_request_queue_seconds_bucket{command="read",le="+Inf"}`)).toBe(reads);
      expect(await ask("up")).toBe("1");
    } finally {
      prometheus.kill();
      await until(
        "the end of prometheus",
        () => prometheus.exitCode !== null || prometheus.signalCode !== null,
        LIMIT_MS,
      );
    }
  },
  LIMIT_MS,
);
