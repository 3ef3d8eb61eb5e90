/** The kinds of failure: what the peer and the user learn of each. */
import { describe, expect, test } from "bun:test";
import { ErrnoError, errnoOf, messageOf, UserError } from "../../src/errors.ts";

describe("an ErrnoError", () => {
  test.each([
    ["ENOSPC", 28, "ENOSPC"],
    ["EDQUOT", 122, "EDQUOT"],
    [5, 5, "EIO"],
    [122, 122, "EDQUOT"],
    [4000, 4000, "errno 4000"],
  ] as const)("of %p has errno %d and code %s", (given, number, code) => {
    const error = new ErrnoError(given);
    expect(error).toMatchObject({ name: "ErrnoError", errno: number, code, message: code });
  });

  test.each([0, -1, -28, 1.5, 4096, 2 ** 32 - 1, Number.NaN, Number.POSITIVE_INFINITY])(
    "of %p, which is no errno, is EIO",
    (number) => {
      expect(new ErrnoError(number).errno).toBe(5);
    },
  );

  test("keeps its message and its cause", () => {
    const cause = new Error("why");
    const error = new ErrnoError("ENOMEM", "no room", { cause });
    expect(error.message).toBe("no room");
    expect(error.cause).toBe(cause);
  });
});

test("errnoOf is an ErrnoError's own, and EIO for all else", () => {
  expect(errnoOf(new ErrnoError("EPERM"))).toBe(1);
  for (const thrown of [new UserError("x"), new Error("x"), { errno: 28 }, "x", 28, null, undefined]) {
    expect(errnoOf(thrown)).toBe(5);
  }
});

const loud = (): never => {
  throw new Error("not me");
};

/** A value without text whose properties cannot even be read. */
const UNPRINTABLE: readonly (readonly [string, unknown, string])[] = [
  ["an object without a prototype", Object.create(null), "something that cannot be printed"],
  ["an object whose toString throws", { toString: loud }, "something that cannot be printed"],
  ["a Symbol", Symbol("s"), "Symbol(s)"],
  ["a Symbol as message", Object.assign(new Error("x"), { message: Symbol("s") }), "Symbol(s)"],
  [
    "a message that throws",
    Object.defineProperty(new Error("x"), "message", { get: loud }),
    "something that cannot be printed",
  ],
  ["a proxy", new Proxy({}, { get: loud, getPrototypeOf: loud }), "something that cannot be printed"],
];

test.each(UNPRINTABLE)("%s is EIO, and has a message", (_, thrown, message) => {
  expect([errnoOf(thrown), messageOf(thrown)]).toEqual([5, message]);
});

test.each([0, -5, 2 ** 32 - 1, Number.NaN, "28"])(
  "an ErrnoError whose errno was made %p is EIO",
  (number) => {
    expect(errnoOf(Object.assign(new ErrnoError("ENOSPC"), { errno: number }))).toBe(5);
  },
);

test("messageOf is one for whatever was thrown", () => {
  expect(messageOf(new UserError("a: b"))).toBe("a: b");
  expect([messageOf("text"), messageOf(7), messageOf(null), messageOf(undefined)]).toEqual([
    "text",
    "7",
    "null",
    "undefined",
  ]);
});
