/** Connects once, and more often if the server says that several connections act as one. */
import { type ExportFacts, isShareable, whyOther } from "./facts.ts";
import { Link } from "./link.ts";
import { negotiate } from "./negotiate.ts";
import type { Remote } from "./remote.ts";

/** The limit for the connection, and again for the handshake, in milliseconds. */
const LIMIT_MS = 10_000;
/** The limit for further connections: a server without room for them may let them wait silently. */
const MORE_LIMIT_MS = 3000;

export interface Established {
  readonly facts: ExportFacts;
  /** At least one. */
  readonly links: readonly Link[];
}

/** @param count how many connections are wanted. @throws UserError or Error, see {@link negotiate}. */
export async function establish(remote: Remote, count: number): Promise<Established> {
  const { facts, link } = await open(remote, LIMIT_MS);
  if (!isShareable(facts)) return { facts, links: [link] };
  const wanted = Array.from({ length: count - 1 }, () => open(remote, MORE_LIMIT_MS));
  // Does without those that the server refuses.
  const more = (await Promise.allSettled(wanted)).flatMap((each) =>
    each.status === "fulfilled" ? [each.value] : [],
  );
  const links = [link, ...more.map((each) => each.link)];
  if (more.every((each) => whyOther(facts, each.facts) === undefined)) return { facts, links };
  for (const each of links) each.close();
  throw new Error("the export is changing");
}

async function open(remote: Remote, limitMs: number): Promise<{ facts: ExportFacts; link: Link }> {
  const link = await Link.connect(remote.address, limitMs);
  const timer = setTimeout(() => link.close("the server does not answer"), limitMs);
  try {
    return { facts: await negotiate(link, remote), link };
  } catch (error) {
    link.close();
    throw error;
  } finally {
    clearTimeout(timer);
  }
}
