/** Module files: an ELF image each, plain or compressed, and the information in it. */
import { readFileSync } from "node:fs";

/** As the kernel names it in /sys/module/compression. */
export type Compression = "gzip" | "xz" | "zstd";

const COMPRESSIONS: Readonly<Record<string, Compression>> = { ".gz": "gzip", ".xz": "xz", ".zst": "zstd" };

/** `nbd` for `kernel/drivers/block/nbd.ko.xz`; undefined for what is no module. A name has no dashes. */
export function moduleName(path: string): string | undefined {
  return /([^/]+)\.ko(?:\.(?:gz|xz|zst))?$/.exec(path)?.[1]?.replaceAll("-", "_");
}

/** How the file is compressed, by its name; undefined when it is not. */
export function compressionOf(path: string): Compression | undefined {
  return COMPRESSIONS[/\.[^.]*$/.exec(path)?.[0] ?? ""];
}

/** The ELF image in a module file. @throws Error when the file cannot be read or decompressed. */
export async function readImage(path: string): Promise<Uint8Array> {
  const bytes = readFileSync(path);
  switch (compressionOf(path)) {
    case "gzip":
      return Bun.gunzipSync(bytes);
    case "zstd":
      return Bun.zstdDecompressSync(bytes);
    case "xz":
      return unxz(bytes);
    default:
      return bytes;
  }
}

/** The one format that the runtime has nothing for. */
async function unxz(bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array> {
  const { XzReadableStream } = await import("xz-decompress");
  return new Response(new XzReadableStream(new Blob([bytes]).stream())).bytes();
}

/** What modinfo(8) prints. */
export interface ModuleInfo {
  /** Names of the modules that must be there first. */
  readonly dependencies: readonly string[];
  /** The kernel that it was built for, as uname(2) has it; undefined when it does not say. */
  readonly release: string | undefined;
}

/** Reads the section .modinfo: `key=value` strings, each with a NUL before and after it. */
export function moduleInfo(image: Uint8Array): ModuleInfo {
  const bytes = Buffer.from(image.buffer, image.byteOffset, image.byteLength);
  const value = (key: string): string | undefined => {
    const start = bytes.indexOf(`\0${key}=`);
    if (start < 0) return undefined;
    const from = start + key.length + 2;
    const end = bytes.indexOf(0, from);
    return bytes.toString("latin1", from, end < 0 ? undefined : end);
  };
  return {
    dependencies: (value("depends") ?? "").split(",").filter((name) => name !== ""),
    release: value("vermagic")?.split(" ")[0],
  };
}
