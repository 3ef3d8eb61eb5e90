/** `warn`: it works, with limits. `fail`: no device can be attached. */
export type Status = "ok" | "warn" | "fail";

export interface Check {
  readonly name: string;
  readonly status: Status;
  readonly finding: string;
  /** Present unless the status is `ok`. */
  readonly remedy?: string;
}

export function ok(name: string, finding: string): Check {
  return { name, status: "ok", finding };
}

export function warn(name: string, finding: string, remedy: string): Check {
  return { name, status: "warn", finding, remedy };
}

export function fail(name: string, finding: string, remedy: string): Check {
  return { name, status: "fail", finding, remedy };
}
