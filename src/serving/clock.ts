/**
 * The time as a request loop knows it. Reading the clock costs as much as answering a short request from memory. So a
 * loop reads it when time may have passed, after a system call or a call of the device, and otherwise reuses the value.
 */
export class Clock {
  /** When it was last read: milliseconds, by performance.now() of this thread. */
  now: number = performance.now();

  /** Reads the clock. Returns {@link now}. */
  read(): number {
    this.now = performance.now();
    return this.now;
  }
}

/** When a request came, and how far it got. Milliseconds, as {@link Clock.now}. */
export interface Times {
  /** The request was read, its payload perhaps not. */
  arrived: number;
  /** The device got it, or it was refused. */
  begun: number;
  /** The device was done with it, or it was answered in the device's place. */
  settled: number;
}
