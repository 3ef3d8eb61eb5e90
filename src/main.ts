#!/usr/bin/env bun
/** The executable: `tsbuse`. */
import { main } from "./cli/main.ts";

// Exits even though a worker may still sit in the kernel.
process.exit(await main(process.argv.slice(2)));
