/**
 * The release of this Debian, and the source of its packages.
 */
import { existsSync, readFileSync } from "node:fs";
import { $ } from "bun";
import { Failure } from "./failure.ts";

/** 12 for Debian 12, for example; undefined for testing, which has no number, and for other systems. */
export function debianRelease(): number | undefined {
  const path = "/etc/os-release";
  const text = existsSync(path) ? readFileSync(path, "utf8") : "";
  const number = /^ID=debian$/m.test(text) ? /^VERSION_ID="?(\d+)/m.exec(text)?.[1] : undefined;
  return number === undefined ? undefined : Number(number);
}

/** Where apt gets its packages from: the first of its sources that is Debian's own. @throws Failure */
export async function archiveInUse(): Promise<{ readonly archive: string; readonly suite: string }> {
  const format = "$(REPO_URI) $(CODENAME)";
  const filter = ["Created-By: Packages", "Origin: Debian", "Component: main"];
  const lines = await $`apt-get indextargets --format ${format} ${filter}`.quiet().nothrow().text();
  const sources = lines.split("\n").map((line) => line.split(" "));
  const [archive, suite] = sources.find(([, name = ""]) => /^[a-z]+$/.test(name)) ?? [];
  if (archive !== undefined && suite !== undefined) return { archive, suite };
  throw new Failure(`apt has no lists of Debian's own packages: run "apt-get update"`, 2);
}
