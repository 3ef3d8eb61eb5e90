import packageJson from "../../package.json" with { type: "json" };

/** Of the package; the binary carries it. */
export const VERSION: string = packageJson.version;
