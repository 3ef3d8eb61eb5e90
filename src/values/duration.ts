/** Times as people read them. */

const UNITS = [
  ["us", 1],
  ["ms", 1000],
  ["s", 1e6],
] as const;

/** `0`, `1.5us`, `12ms`, `30s` of microseconds: two digits at least. */
export function formatDuration(microseconds: number): string {
  if (microseconds === 0) return "0";
  const [unit, size] = UNITS.find(([, each]) => microseconds / each < 999.5) ?? UNITS[2];
  const value = microseconds / size;
  return `${value.toFixed(value < 9.95 ? 1 : 0)}${unit}`;
}
