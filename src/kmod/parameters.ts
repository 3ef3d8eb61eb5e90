/** Parameters of modules, as modprobe(8) and the kernel's command line give them. */

/** Values by name; what is undefined is left to the module. */
export type ModuleParameters = Readonly<Record<string, number | undefined>>;

/** `max_part=16` for each that is given. */
export function parameterWords(parameters: ModuleParameters): string[] {
  return Object.entries(parameters).flatMap(([name, value]) =>
    value === undefined ? [] : [`${name}=${value}`],
  );
}

/** What the kernel's command line says for a module: `max_part=8` for the word `nbd.max_part=8`. */
export function commandLineWords(name: string, commandLine: string): string[] {
  return commandLine.split(/\s+/).flatMap((word) => {
    const [, module, setting] = /^([^.=]+)\.(.+)$/.exec(word) ?? [];
    return setting !== undefined && module?.replaceAll("-", "_") === name ? [setting] : [];
  });
}
