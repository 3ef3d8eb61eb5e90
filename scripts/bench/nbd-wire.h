/*
 * The part of the NBD protocol that the programs of the native benchmark share: its numbers, from doc/proto.md of
 * https://github.com/NetworkBlockDevice/nbd, and the handshake of a server that has one export.
 */
#ifndef NBD_WIRE_H
#define NBD_WIRE_H

#include <endian.h>
#include <stdint.h>
#include <sys/socket.h>

#define NBDMAGIC 0x4e42444d41474943ull
#define IHAVEOPT 0x49484156454f5054ull
#define REPLY_OPTION_MAGIC 0x3e889045565a9ull
#define REQUEST_MAGIC 0x25609513u
#define REPLY_MAGIC 0x67446698u

enum { OPT_EXPORT_NAME = 1, OPT_ABORT = 2, OPT_GO = 7 };
enum { REP_ACK = 1, REP_INFO = 3 };
#define REP_ERROR (1u << 31)
#define REP_ERR_UNSUP (REP_ERROR | 1u)
enum { CMD_READ = 0, CMD_WRITE = 1, CMD_DISC = 2, CMD_FLUSH = 3, CMD_TRIM = 4 };
enum { FLAG_HAS_FLAGS = 1, FLAG_SEND_FLUSH = 1 << 2, FLAG_SEND_TRIM = 1 << 5 };
enum { FIXED_NEWSTYLE = 1, NO_ZEROES = 2 };

struct request {
	uint32_t magic;
	uint16_t flags, type;
	uint64_t cookie, from;
	uint32_t length;
} __attribute__((packed));

struct reply {
	uint32_t magic, error;
	uint64_t cookie;
} __attribute__((packed));

struct option {
	uint64_t magic;
	uint32_t number, length;
} __attribute__((packed));

struct option_reply {
	uint64_t magic;
	uint32_t option, type, length;
} __attribute__((packed));

/* Returns whether all of it arrived. */
static int receive_all(int fd, void *buffer, size_t length)
{
	for (size_t done = 0; done < length;) {
		ssize_t got = recv(fd, (char *)buffer + done, length - done, MSG_WAITALL);
		if (got <= 0) return 0;
		done += (size_t)got;
	}
	return 1;
}

static int send_all(int fd, const void *buffer, size_t length)
{
	for (size_t done = 0; done < length;) {
		ssize_t sent = send(fd, (const char *)buffer + done, length - done, MSG_NOSIGNAL);
		if (sent <= 0) return 0;
		done += (size_t)sent;
	}
	return 1;
}

/* Answers one NBD_OPT_GO for any export name. Returns whether the client has the export. */
__attribute__((unused)) static int answer_options(int fd, uint64_t size, uint16_t flags)
{
	struct { uint64_t magic, option; uint16_t flags; } __attribute__((packed)) greeting = {
		htobe64(NBDMAGIC), htobe64(IHAVEOPT), htobe16(FIXED_NEWSTYLE | NO_ZEROES),
	};
	uint32_t client_flags;
	struct option option;
	char data[4096];
	if (!send_all(fd, &greeting, sizeof greeting) || !receive_all(fd, &client_flags, 4)) return 0;
	if (!receive_all(fd, &option, sizeof option) || be32toh(option.length) > sizeof data) return 0;
	if (be32toh(option.number) != OPT_GO || !receive_all(fd, data, be32toh(option.length))) return 0;
	struct { struct option_reply head; uint16_t info; uint64_t size; uint16_t flags; struct option_reply ack; }
	__attribute__((packed)) answer = {
		{ htobe64(REPLY_OPTION_MAGIC), option.number, htobe32(REP_INFO), htobe32(12) },
		0, htobe64(size), htobe16(flags),
		{ htobe64(REPLY_OPTION_MAGIC), option.number, htobe32(REP_ACK), 0 },
	};
	return send_all(fd, &answer, sizeof answer);
}

#endif
