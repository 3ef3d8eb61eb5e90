/** A device as an NBD export. */
import type { Dispatch } from "../../dispatch.ts";
import { UserError } from "../../errors.ts";
import { NBD_FLAG_CAN_MULTI_CONN } from "../../uapi/nbd.ts";
import { NBD_FLAG_SEND_DF, NBD_MAX_STRING_SIZE } from "../wire/numbers.ts";
import { transmissionFlags } from "../wire/transmission-flags.ts";
import type { ServerTarget } from "./target.ts";

export interface ExportInfo {
  /** The name that LIST shows. */
  readonly name: string;
  /** All names that clients can use for it: its own, and the empty one of the default export. */
  readonly names: readonly string[];
  readonly description: string;
  /** Bytes. */
  readonly size: number;
  readonly blockSize: number;
  /** NBD_FLAG_*; `structured` says whether the client negotiated structured replies. */
  flags(structured: boolean): number;
  /** Whether the export has `base:allocation`. */
  readonly allocation: boolean;
}

export interface ExportOptions {
  /** Default: the empty name. */
  readonly exportName?: string | undefined;
  readonly description?: string | undefined;
}

/** @throws UserError if a name or description is too long. */
export function servedExport(target: ServerTarget, dispatch: Dispatch, options: ExportOptions): ExportInfo {
  const exportName = options.exportName ?? target.exportName ?? "";
  checkLength("export name", exportName);
  checkLength("description", options.description ?? "");
  return exportInfo(dispatch, { exportName, description: options.description });
}

function checkLength(what: string, text: string): void {
  if (Buffer.byteLength(text) > NBD_MAX_STRING_SIZE) {
    throw new UserError(`the ${what} is too long: give at most ${NBD_MAX_STRING_SIZE} bytes`);
  }
}

export function exportInfo(dispatch: Dispatch, options: ExportOptions): ExportInfo {
  const name = options.exportName ?? "";
  // All connections share one device in one process: a flush on any covers what was answered on all.
  const flags = transmissionFlags(dispatch) | NBD_FLAG_CAN_MULTI_CONN;
  return {
    name,
    names: name === "" ? [""] : ["", name],
    description: options.description ?? "",
    // A getter, because each client asks when it connects.
    get size() {
      return dispatch.size;
    },
    blockSize: dispatch.blockSize,
    flags: (structured) => flags | (structured ? NBD_FLAG_SEND_DF : 0),
    allocation: dispatch.capabilities.extents,
  };
}
