/** Connecting: one connection, and more of them where the server says that they are as good as one. */
import { type ExportFacts, isShareable, whyOther } from "./facts.ts";
import { Link } from "./link.ts";
import { negotiate } from "./negotiate.ts";
import type { Remote } from "./remote.ts";

/** For the connection, and once more for the handshake, in milliseconds. */
const LIMIT_MS = 10_000;

export interface Established {
  readonly facts: ExportFacts;
  /** At least one. */
  readonly links: readonly Link[];
}

/** @param count how many connections are wanted. @throws UserError or Error, see {@link negotiate}. */
export async function establish(remote: Remote, count: number): Promise<Established> {
  const { facts, link } = await open(remote);
  const links = [link];
  while (links.length < count && isShareable(facts)) {
    // The server may let us have no more than some: they do.
    const more = await open(remote).catch(() => undefined);
    if (more === undefined) break;
    if (whyOther(facts, more.facts) === undefined) {
      links.push(more.link);
      continue;
    }
    for (const each of [...links, more.link]) each.close();
    throw new Error("the export is changing");
  }
  return { facts, links };
}

async function open(remote: Remote): Promise<{ facts: ExportFacts; link: Link }> {
  const link = await Link.connect(remote.address, LIMIT_MS);
  const timer = setTimeout(() => link.close("the server does not answer"), LIMIT_MS);
  try {
    return { facts: await negotiate(link, remote), link };
  } catch (error) {
    link.close();
    throw error;
  } finally {
    clearTimeout(timer);
  }
}
