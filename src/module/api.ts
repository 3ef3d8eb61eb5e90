/** Makes `import … from "tsbuse"` in a module this program's own API, wherever the module lies. */
import * as api from "../index.ts";

/** The name by which modules import the API. */
export const API_NAME = "tsbuse";

/** The names that it exports: importing any other is an error that is reported before the module runs. */
export const API_EXPORTS: readonly string[] = Object.keys(api);

let provided = false;

/** Makes the API importable. Call it before importing a module; further calls do nothing. */
export function provideApi(): void {
  if (provided) return;
  provided = true;
  Bun.plugin({
    name: API_NAME,
    setup(build) {
      build.module(API_NAME, () => ({ exports: api, loader: "object" }));
    },
  });
}
