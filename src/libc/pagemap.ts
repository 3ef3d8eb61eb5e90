/** Which pages of this process have memory or swap: /proc/self/pagemap (proc_pid_pagemap(5)). */
import { closeSync, openSync, readSync } from "node:fs";
import { libc } from "./library.ts";
import { inCurrentRoot } from "./root.ts";

/** Bytes in a page of memory, getpagesize(2): 4096, or 16 or 64 KiB on some kernels for Arm. */
export const PAGE = libc.getpagesize();

/** The size of an entry, in page tables and in pagemap. */
const ENTRY_BYTES = 8;
/** Bytes in a transparent huge page, covered by one page of entries: 2, 32 or 512 MiB. */
export const HUGE_PAGE = (PAGE / ENTRY_BYTES) * PAGE;
/** Bits 63 and 62, "present" and "swapped", in the upper half of an entry. */
const PRESENT_OR_SWAPPED = 0xc0000000;

/** A run of pages. */
export interface PageRun {
  /** Bytes. */
  readonly length: number;
  /** Whether the pages have been written: they may hold anything. If not, they read as zeroes. */
  readonly allocated: boolean;
}

/**
 * The private anonymous pages from `address` on, in runs. The first and last page count only as far as they lie in the
 * range. Returns undefined if the kernel does not tell.
 */
export function pageRuns(address: number, length: number): PageRun[] | undefined {
  const first = Math.floor(address / PAGE);
  const count = Math.ceil((address + length) / PAGE) - first;
  const entries = readPagemap(first, count);
  if (entries === undefined) return undefined;
  const runs: PageRun[] = [];
  let at = address;
  for (let page = 0; page < count;) {
    const allocated = isAllocated(entries, page);
    page += 1;
    while (page < count && isAllocated(entries, page) === allocated) page += 1;
    const end = Math.min((first + page) * PAGE, address + length);
    runs.push({ length: end - at, allocated });
    at = end;
  }
  return runs;
}

/** Entries as pairs of 32-bit words, the lower first. */
function readPagemap(first: number, count: number): Uint32Array | undefined {
  const entries = new Uint32Array(new ArrayBuffer(count * ENTRY_BYTES));
  let fd: number;
  try {
    fd = openSync(inCurrentRoot("/proc/self/pagemap"), "r");
  } catch {
    // /proc is not mounted, or a sandbox forbids it.
    return undefined;
  }
  try {
    const bytes = new Uint8Array(entries.buffer);
    const read = readSync(fd, bytes, 0, bytes.length, first * ENTRY_BYTES);
    return read === bytes.length ? entries : undefined;
  } catch {
    return undefined;
  } finally {
    closeSync(fd);
  }
}

function isAllocated(entries: Uint32Array, page: number): boolean {
  return ((entries[2 * page + 1] ?? 0) & PRESENT_OR_SWAPPED) !== 0;
}
