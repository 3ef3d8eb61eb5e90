/** The server and export that a URI names: doc/uri.md of the NBD project, and the forms of our own targets. */
import { UserError } from "../../errors.ts";
import { parseServerTarget, type ServerTarget, targetUri } from "../server/target.ts";

export interface Remote {
  readonly address: ServerTarget;
  readonly exportName: string;
  /** Normalized: it identifies the data, and appears in messages. */
  readonly uri: string;
}

const FORMS = "nbd://HOST:PORT/NAME or nbd+unix:///NAME?socket=PATH";

/** @throws UserError if it names no reachable export. */
export function parseRemote(text: string): Remote {
  if (/^nbds[:+]/.test(text)) {
    throw new UserError(
      `${text} asks for TLS, which is not supported: give nbd:// through a tunnel, such as "ssh -L" makes`,
    );
  }
  const isUri = /^nbd(\+unix)?:\/\//.test(text) && URL.canParse(text);
  if (!isUri && !/^(unix|tcp):/.test(text)) throw new UserError(`${text} is not an NBD URI: give ${FORMS}`);
  const address = parseServerTarget(text);
  const exportName = address.exportName ?? "";
  return { address, exportName, uri: targetUri(address, exportName) };
}
