/** Makes `import … from "tsbuse"` in a module this program's own API, wherever the module lies. */
import * as api from "../index.ts";

/** The name by which modules import the API. */
export const API_NAME = "tsbuse";

/** The names that it exports: an import of any other is an error that can be told before the module runs. */
export const API_EXPORTS: readonly string[] = Object.keys(api);

let provided = false;

/** Makes the API importable. To be called before a module is imported; further calls do nothing. */
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
