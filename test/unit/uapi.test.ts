/** Every number and layout in src/uapi against this system's own headers, by a C program. */
import { describe, expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { errno, errnoName } from "../../src/uapi/errno.ts";
import { compiles, evaluate, HAS_COMPILER } from "../support/c-program.ts";

const FOLDER = join(import.meta.dir, "../../src/uapi");

/** The headers of each module. */
const HEADERS: Readonly<Record<string, readonly string[]>> = {
  "errno.ts": ["<errno.h>"],
  "eventfd.ts": ["<sys/eventfd.h>"],
  "falloc.ts": ["<linux/falloc.h>"],
  "fcntl.ts": ["<fcntl.h>", "<sys/file.h>"],
  "fs.ts": ["<linux/fs.h>"],
  "io_uring.ts": ["<linux/io_uring.h>"],
  "genetlink.ts": ["<linux/genetlink.h>"],
  "in.ts": ["<netinet/in.h>", "<netinet/tcp.h>"],
  "ioctl.ts": ["<sys/ioctl.h>"],
  "limits.ts": ["<linux/limits.h>"],
  "mman.ts": ["<sys/mman.h>"],
  "module.ts": ["<linux/module.h>"],
  "nbd.ts": ["<linux/types.h>", "<sys/ioctl.h>", "<linux/nbd.h>"],
  "nbd-netlink.ts": ["<linux/nbd-netlink.h>"],
  "netlink.ts": ["<linux/netlink.h>", "<sys/socket.h>"],
  "poll.ts": ["<poll.h>"],
  "prctl.ts": ["<sys/prctl.h>"],
  "capability.ts": ["<linux/capability.h>"],
  "sched.ts": ["<sched.h>"],
  "signal.ts": ["<signal.h>"],
  "socket.ts": ["<sys/socket.h>", "<sys/uio.h>"],
  "ublk_cmd.ts": ["<errno.h>", "<sys/ioctl.h>", "<linux/ublk_cmd.h>"],
  "unistd.ts": ["<sys/syscall.h>", "<fcntl.h>", "<sys/stat.h>"],
  "wait.ts": ["<sys/wait.h>"],
};

/** Layouts: structures of these names, and the fields that have another name there. */
const STRUCTS: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  // "cookie" since Linux 6.3, where "handle" is another name for it.
  nbd_request: { cookie: "handle" },
  nbd_reply: { cookie: "handle" },
};
const PLAIN_STRUCTS = new Set(
  `iovec msghdr ublksrv_ctrl_cmd ublksrv_io_cmd ublksrv_io_desc ublksrv_ctrl_dev_info ublk_param_basic
  ublk_param_discard ublk_params io_uring_params io_sqring_offsets io_cqring_offsets io_uring_sqe io_uring_cqe
  pollfd sigaction sockaddr_in sockaddr_in6 nlmsghdr nlattr genlmsghdr`.split(/\s+/),
);

/** Exports that are no constant of a header but stand for an expression. */
const EXPRESSIONS: Readonly<Record<string, string>> = {
  SIGSET_BYTES: "sizeof(sigset_t)",
  SQE128_BYTES: "2 * sizeof(struct io_uring_sqe)",
};

/** Commands that headers before Linux 6.4 have as plain numbers only, by the encoding that newer ones give them. */
const UBLK_COMMANDS: Readonly<Record<string, string>> = {
  UBLK_U_CMD_GET_DEV_INFO: "_IOR('u', UBLK_CMD_GET_DEV_INFO, struct ublksrv_ctrl_cmd)",
  UBLK_U_CMD_ADD_DEV: "_IOWR('u', UBLK_CMD_ADD_DEV, struct ublksrv_ctrl_cmd)",
  UBLK_U_CMD_DEL_DEV: "_IOWR('u', UBLK_CMD_DEL_DEV, struct ublksrv_ctrl_cmd)",
  UBLK_U_CMD_START_DEV: "_IOWR('u', UBLK_CMD_START_DEV, struct ublksrv_ctrl_cmd)",
  UBLK_U_CMD_STOP_DEV: "_IOWR('u', UBLK_CMD_STOP_DEV, struct ublksrv_ctrl_cmd)",
  UBLK_U_CMD_SET_PARAMS: "_IOWR('u', UBLK_CMD_SET_PARAMS, struct ublksrv_ctrl_cmd)",
  UBLK_U_CMD_GET_PARAMS: "_IOR('u', UBLK_CMD_GET_PARAMS, struct ublksrv_ctrl_cmd)",
  UBLK_U_CMD_START_USER_RECOVERY: "_IOWR('u', UBLK_CMD_START_USER_RECOVERY, struct ublksrv_ctrl_cmd)",
  UBLK_U_CMD_END_USER_RECOVERY: "_IOWR('u', UBLK_CMD_END_USER_RECOVERY, struct ublksrv_ctrl_cmd)",
  UBLK_U_CMD_GET_FEATURES: "_IOR('u', 0x13, struct ublksrv_ctrl_cmd)",
  UBLK_U_CMD_DEL_DEV_ASYNC: "_IOR('u', 0x14, struct ublksrv_ctrl_cmd)",
  UBLK_U_CMD_UPDATE_SIZE: "_IOWR('u', 0x15, struct ublksrv_ctrl_cmd)",
  UBLK_U_IO_FETCH_REQ: "_IOWR('u', UBLK_IO_FETCH_REQ, struct ublksrv_io_cmd)",
  UBLK_U_IO_COMMIT_AND_FETCH_REQ: "_IOWR('u', UBLK_IO_COMMIT_AND_FETCH_REQ, struct ublksrv_io_cmd)",
  UBLK_U_IO_NEED_GET_DATA: "_IOWR('u', UBLK_IO_NEED_GET_DATA, struct ublksrv_io_cmd)",
};

/** Functions: a test below is theirs. */
const FUNCTIONS = new Set(["_IO", "_IOR", "_IOWR", "errnoName"]);

/** What some headers in use are too old to know, with the value from a header that is not. */
const YOUNG: Readonly<Record<string, number>> = {
  NBD_CMD_WRITE_ZEROES: 6,
  NBD_CMD_FLAG_NO_HOLE: 0x20000,
  NBD_FLAG_ROTATIONAL: 0x10,
  NBD_FLAG_SEND_WRITE_ZEROES: 0x40,
  MADV_POPULATE_READ: 22,
  MADV_POPULATE_WRITE: 23,
  MFD_NOEXEC_SEAL: 8,
  MFD_EXEC: 0x10,
  UBLK_FEATURES_LEN: 8,
  UBLK_IO_BUF_BITS: 25,
  UBLK_TAG_BITS: 16,
  UBLK_MAX_NR_QUEUES: 4096,
  UBLK_F_CMD_IOCTL_ENCODE: 0x40,
  UBLK_F_USER_COPY: 0x80,
  UBLK_F_UPDATE_SIZE: 0x400,
  UBLK_F_QUIESCE: 0x1000,
  UBLK_S_DEV_FAIL_IO: 3,
  UBLK_IO_OP_ZONE_OPEN: 10,
  MODULE_INIT_COMPRESSED_FILE: 4,
};

/** A value of ours and the C expression that must be equal to it. */
interface Claim {
  readonly name: string;
  readonly value: number;
  readonly expression: string;
}

/** What one export claims. @throws Error for an export that this test does not know how to check. */
function claimsOf(name: string, value: unknown): Claim[] {
  if (FUNCTIONS.has(name)) return [];
  if (typeof value === "number")
    return [{ name, value, expression: EXPRESSIONS[name] ?? UBLK_COMMANDS[name] ?? name }];
  if (value === errno) return Object.entries(errno).flatMap(([code, number]) => claimsOf(code, number));
  const names = PLAIN_STRUCTS.has(name) ? {} : STRUCTS[name];
  if (names !== undefined && typeof value === "object" && value !== null) {
    return Object.entries(value).map(([field, at]) => ({
      name: `${name}.${field}`,
      value: Number(at),
      expression:
        field === "size" ? `sizeof(struct ${name})` : `offsetof(struct ${name}, ${names[field] ?? field})`,
    }));
  }
  throw new Error(`the export ${name} is not covered: add it to this test`);
}

async function claimsOfModule(module: string): Promise<Claim[]> {
  const exported: Record<string, unknown> = await import(join(FOLDER, module));
  return Object.entries(exported).flatMap(([name, value]) => claimsOf(name, value));
}

const MODULES = readdirSync(FOLDER).toSorted();

test("every module is covered", () => {
  expect(MODULES).toEqual(Object.keys(HEADERS).toSorted());
});

describe.skipIf(!HAS_COMPILER)("against the headers (skipped where there is no cc)", () => {
  test.each(MODULES)("%s", async (module) => {
    const headers = HEADERS[module] ?? [];
    const claims = await claimsOfModule(module);
    const known = claims.filter(({ name }) => !(name in YOUNG) || compiles(headers, name));
    const values = evaluate(
      headers,
      known.map((claim) => claim.expression),
    );
    const ours = known.map(({ name, value }) => `${name} = ${value}`);
    const theirs = known.map(({ name }, index) => `${name} = ${values[index]}`);
    expect(ours).toEqual(theirs);
  });

  test("_IO, _IOR and _IOWR build what the header's macros build", async () => {
    const { _IO, _IOR, _IOWR } = await import("../../src/uapi/ioctl.ts");
    const samples = [
      "_IO(0xab, 3)",
      "_IO(0x12, 119)",
      "_IO(0xff, 0xff)",
      "_IOR(0x12, 114, char[8])",
      "_IOWR(0x75, 4, char[32])",
    ];
    const long = "_IOR('u', 0x13, char[16383])";
    const expected = evaluate(["<sys/ioctl.h>"], [...samples, long]);
    const built = [
      _IO(0xab, 3),
      _IO(0x12, 119),
      _IO(0xff, 0xff),
      _IOR(0x12, 114, 8),
      _IOWR(0x75, 4, 32),
      _IOR(0x75, 0x13, 16_383),
    ];
    expect(built).toEqual(expected);
  });
});

test("what a header may be too old to know has the value that newer ones give it", async () => {
  const claims = (await Promise.all(MODULES.map(claimsOfModule))).flat();
  const young = claims.filter(({ name }) => name in YOUNG).map(({ name, value }) => [name, value]);
  expect(Object.fromEntries(young)).toEqual(YOUNG);
});

test("an export that nobody listed is refused by this test", () => {
  expect(() => claimsOf("NEW_STRUCT", { a: 0 })).toThrow("not covered");
  expect(() => claimsOf("newFunction", () => 0)).toThrow("not covered");
});

test("errnoName knows the names of its numbers, and says so of others", () => {
  expect(errnoName(5)).toBe("EIO");
  expect(errnoName(122)).toBe("EDQUOT");
  expect(errnoName(4000)).toBe("errno 4000");
});
