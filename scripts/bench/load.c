/*
 * The load generator of the native benchmark: an NBD client on a Unix socket that keeps a number of requests in flight
 * and measures. It sends as the kernel's driver does, each header as a message of its own and the payload of a write
 * as another one after it. sendmmsg(2) saves the system calls, which the driver does not make either.
 *
 *     load run SOCKET EXPORT MODE BLOCK DEPTH SECONDS WARM SEED
 *         MODE is read, write, randread, randwrite, mixed (7 random reads to 3 random writes), trim or fill (every
 *         block written once, whatever SECONDS says). WARM seconds come first and are not counted. Prints one line of
 *         JSON, and keeps the connection until its stdin ends, so that the caller can inspect the server.
 *     load null SOCKET BYTES
 *         A server that stores nothing and does nothing: the limit of the generator and two sockets.
 *     load ready SOCKET EXPORT COMMAND...
 *         Milliseconds from the start of COMMAND, a server, to the end of a handshake with it. Ends it with SIGTERM,
 *         unless it went to the background.
 */
#define _GNU_SOURCE
#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "nbd-wire.h"

enum { DEPTH_MAX = 256, BLOCK_MAX = 32 << 20, RECEIVE_BYTES = 512 << 10 };
enum { READY_LIMIT_MS = 20000, LISTEN_LIMIT_MS = 2000, READY_POLL_US = 100 };
enum { STALL_LIMIT_S = 20 };

__attribute__((noreturn, format(printf, 1, 2))) static void fail(const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	fputs("load: ", stderr);
	vfprintf(stderr, format, arguments);
	fputc('\n', stderr);
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void *allocate(size_t size)
{
	void *memory = NULL;
	if (posix_memalign(&memory, 4096, size)) fail("no memory");
	/* Touch every page, with data that is neither constant nor zero. */
	for (size_t i = 0; i < size; i++) ((uint8_t *)memory)[i] = (uint8_t)(i * 131 + (i >> 12));
	return memory;
}

static struct sockaddr_un address_of(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	if (strlen(path) >= sizeof address.sun_path) fail("the path of the socket is too long: %s", path);
	strcpy(address.sun_path, path);
	return address;
}

/* A connected socket, or -1. */
static int try_connect(const char *path)
{
	struct sockaddr_un address = address_of(path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0) fail("socket: %s", strerror(errno));
	if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0) return fd;
	int reason = errno;
	close(fd);
	errno = reason;
	return -1;
}

/* ---- the handshake ---- */

struct export {
	uint64_t size;
	uint16_t flags;
};

/* NBD_OPT_GO, or NBD_OPT_EXPORT_NAME for servers that do not know it. Returns whether the export is open. */
static int negotiate(int fd, const char *name, struct export *export)
{
	struct { uint64_t magic, option; uint16_t flags; } __attribute__((packed)) greeting;
	uint32_t client_flags = htobe32(FIXED_NEWSTYLE | NO_ZEROES), name_length = (uint32_t)strlen(name);
	if (!receive_all(fd, &greeting, sizeof greeting)) return 0;
	if (be64toh(greeting.magic) != NBDMAGIC || be64toh(greeting.option) != IHAVEOPT) return 0;
	struct { struct option head; uint32_t name_length; char rest[256]; } __attribute__((packed)) go = {
		.head = { htobe64(IHAVEOPT), htobe32(OPT_GO), htobe32(4 + name_length + 2) }, .name_length = htobe32(name_length),
	};
	if (name_length > sizeof go.rest - 2) fail("the name of the export is too long");
	memcpy(go.rest, name, name_length);
	if (!send_all(fd, &client_flags, 4) || !send_all(fd, &go, sizeof go.head + 4 + name_length + 2)) return 0;
	for (;;) {
		struct option_reply reply;
		uint8_t data[4096];
		if (!receive_all(fd, &reply, sizeof reply)) return 0;
		uint32_t type = be32toh(reply.type), length = be32toh(reply.length);
		if (be64toh(reply.magic) != REPLY_OPTION_MAGIC || length > sizeof data) return 0;
		if (!receive_all(fd, data, length)) return 0;
		if (type == REP_ACK) return 1;
		if (type == REP_INFO && length == 12 && data[0] == 0 && data[1] == 0) {
			memcpy(&export->size, data + 2, 8);
			memcpy(&export->flags, data + 10, 2);
			export->size = be64toh(export->size);
			export->flags = be16toh(export->flags);
		}
		if (type == REP_ERR_UNSUP) break;
		if (type & REP_ERROR) fail("the server refuses the export \"%s\": %#x", name, type);
	}
	struct option by_name = { htobe64(IHAVEOPT), htobe32(OPT_EXPORT_NAME), htobe32(name_length) };
	struct { uint64_t size; uint16_t flags; } __attribute__((packed)) answer;
	if (!send_all(fd, &by_name, sizeof by_name) || !send_all(fd, name, name_length)) return 0;
	if (!receive_all(fd, &answer, sizeof answer)) return 0;
	*export = (struct export){ be64toh(answer.size), be16toh(answer.flags) };
	return 1;
}

/* ---- the requests ---- */

static const char *const MODES[] = { "read", "write", "randread", "randwrite", "mixed", "trim", "fill" };
enum mode { READ, WRITE, RANDREAD, RANDWRITE, MIXED, TRIM, FILL, MODE_COUNT };

struct run {
	enum mode mode;
	uint32_t block, depth;
	uint64_t blocks, warm_ns, measured_ns, random;
	/* The next block of a sequential mode. */
	uint64_t next;
};

static uint64_t next_random(struct run *run)
{
	/* xorshift64*, Vigna 2016. */
	run->random ^= run->random >> 12;
	run->random ^= run->random << 25;
	run->random ^= run->random >> 27;
	return run->random * 0x2545f4914f6cdd1dull;
}

static uint16_t next_command(struct run *run)
{
	switch (run->mode) {
	case WRITE: case RANDWRITE: case FILL: return CMD_WRITE;
	case MIXED: return (next_random(run) >> 32) % 10 < 7 ? CMD_READ : CMD_WRITE;
	case TRIM: return CMD_TRIM;
	default: return CMD_READ;
	}
}

static uint64_t next_offset(struct run *run)
{
	int sequential = run->mode == READ || run->mode == WRITE || run->mode == FILL;
	uint64_t block = sequential ? run->next++ : next_random(run) >> 16;
	return block % run->blocks * run->block;
}

/* ---- latencies: 64 buckets for each power of two, so that a bucket is off by 1.6 % at most ---- */

enum { SUB_BITS = 6, BUCKETS = 64 << SUB_BITS };
static uint64_t histogram[BUCKETS];

static unsigned bucket_of(uint64_t ns)
{
	unsigned shift = ns >> SUB_BITS ? 63u - (unsigned)__builtin_clzll(ns) - SUB_BITS : 0;
	return (shift << SUB_BITS) + (unsigned)(ns >> shift);
}

static double percentile_us(double part)
{
	uint64_t total = 0, below = 0;
	for (unsigned i = 0; i < BUCKETS; i++) total += histogram[i];
	for (unsigned i = 0; i < BUCKETS; i++) {
		below += histogram[i];
		if (total > 0 && (double)below >= part * (double)total) {
			unsigned shift = i < 2u << SUB_BITS ? 0 : (i >> SUB_BITS) - 1;
			return (double)((uint64_t)(i - (shift << SUB_BITS)) << shift) / 1000;
		}
	}
	return 0;
}

/* ---- the generator ---- */

static struct request requests[DEPTH_MAX];
static uint64_t sent_at[DEPTH_MAX];
static uint8_t busy[DEPTH_MAX];
static uint16_t free_slots[DEPTH_MAX];
static struct iovec parts[2 * DEPTH_MAX];
static struct mmsghdr messages[2 * DEPTH_MAX];

/* Sends messages[first..count) until the socket is full; returns the index of the first unsent one. */
static unsigned send_messages(int fd, unsigned first, unsigned count)
{
	while (first < count) {
		int sent = sendmmsg(fd, messages + first, count - first, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (sent < 0 && errno == EAGAIN) return first;
		if (sent <= 0) fail("the server is gone: sendmmsg: %s", strerror(errno));
		first += (unsigned)sent - 1;
		parts[first].iov_base = (char *)parts[first].iov_base + messages[first].msg_len;
		parts[first].iov_len -= messages[first].msg_len;
		if (parts[first].iov_len > 0) return first;
		first++;
	}
	return first;
}

static unsigned add_part(unsigned count, void *base, size_t length)
{
	parts[count] = (struct iovec){ base, length };
	messages[count].msg_hdr.msg_iov = parts + count;
	messages[count].msg_hdr.msg_iovlen = 1;
	return count + 1;
}

/* Takes the replies in `length` bytes; returns the length of the whole ones. `skip` counts payload still to come. */
struct replies {
	uint64_t skip;
	unsigned free_count;
	uint64_t done;
};

static size_t take_replies(struct replies *replies, const uint8_t *bytes, size_t length, uint32_t block, int counts)
{
	uint64_t now = now_ns();
	size_t at = 0;
	for (;;) {
		size_t skipped = replies->skip < length - at ? replies->skip : length - at;
		replies->skip -= skipped;
		at += skipped;
		if (length - at < sizeof(struct reply)) return at;
		struct reply reply;
		memcpy(&reply, bytes + at, sizeof reply);
		at += sizeof reply;
		if (be32toh(reply.magic) != REPLY_MAGIC) fail("a reply has the wrong magic");
		if (reply.error) fail("the server answered with error %u", be32toh(reply.error));
		if (reply.cookie >= DEPTH_MAX || !busy[reply.cookie]) fail("a reply to nothing that was asked");
		busy[reply.cookie] = 0;
		free_slots[replies->free_count++] = (uint16_t)reply.cookie;
		replies->done++;
		if (counts) histogram[bucket_of(now - sent_at[reply.cookie])]++;
		if (requests[reply.cookie].type == htobe16(CMD_READ)) replies->skip = block;
	}
}

static void generate(int fd, struct run *run)
{
	uint8_t *payload = allocate(run->block), *bytes = allocate(RECEIVE_BYTES);
	struct replies replies = { .free_count = run->depth };
	for (unsigned i = 0; i < run->depth; i++) free_slots[i] = (uint16_t)i;
	unsigned first = 0, count = 0;
	size_t held = 0;
	uint64_t started = now_ns(), asked = 0, warm = 0;
	uint64_t counted_from = started + run->warm_ns, ends = UINT64_MAX, begun = 0, ended = 0;
	for (;;) {
		uint64_t now = now_ns();
		/* On a busy machine we may wake up late: counting starts now, and lasts its full time. */
		if (begun == 0 && now >= counted_from) begun = now, ends = now + run->measured_ns, warm = replies.done;
		int over = run->mode == FILL ? asked == run->blocks : now >= ends;
		if (over && run->mode != FILL && ended == 0) {
			ended = now;
			printf("{\"requests\":%llu,\"seconds\":%.6f,", (unsigned long long)(replies.done - warm),
			       (double)(ended - begun) / 1e9);
		}
		if (over && replies.free_count == run->depth && first == count) break;
		/* Makes new requests only when all earlier ones are sent: with a full socket they would wait anyway. */
		if (first == count && !over) {
			first = count = 0;
			while (replies.free_count > 0 && !(run->mode == FILL && asked == run->blocks)) {
				unsigned slot = free_slots[--replies.free_count];
				uint16_t command = next_command(run);
				requests[slot] = (struct request){ htobe32(REQUEST_MAGIC), 0, htobe16(command), slot,
				                                   htobe64(next_offset(run)), htobe32(run->block) };
				busy[slot] = 1;
				sent_at[slot] = now;
				count = add_part(count, &requests[slot], sizeof requests[slot]);
				if (command == CMD_WRITE) count = add_part(count, payload, run->block);
				asked++;
			}
		}
		first = send_messages(fd, first, count);
		if (first < count) {
			struct pollfd wait = { fd, POLLIN | POLLOUT, 0 };
			if (poll(&wait, 1, STALL_LIMIT_S * 1000) <= 0) fail("the server hangs: it neither reads nor replies");
			if (!(wait.revents & (POLLIN | POLLHUP | POLLERR))) continue;
		}
		ssize_t got = recv(fd, bytes + held, RECEIVE_BYTES - held, 0);
		if (got <= 0) fail("the server ended the connection or does not answer");
		size_t length = held + (size_t)got;
		size_t taken = take_replies(&replies, bytes, length, run->block, begun != 0 && ended == 0);
		held = length - taken;
		memmove(bytes, bytes + taken, held);
	}
	if (run->mode == FILL) {
		printf("{\"requests\":%llu,\"seconds\":%.6f,", (unsigned long long)asked, (double)(now_ns() - started) / 1e9);
	}
	printf("\"total\":%llu,\"p50\":%.1f,\"p99\":%.1f}\n", (unsigned long long)asked, percentile_us(0.5),
	       percentile_us(0.99));
	fflush(stdout);
}

static enum mode mode_called(const char *name)
{
	for (int i = 0; i < MODE_COUNT; i++)
		if (strcmp(MODES[i], name) == 0) return (enum mode)i;
	fail("no such mode: %s", name);
}

static void run_load(char **words)
{
	struct run run = {
		.mode = mode_called(words[2]), .block = (uint32_t)atol(words[3]), .depth = (uint32_t)atol(words[4]),
		.measured_ns = (uint64_t)(atof(words[5]) * 1e9), .warm_ns = (uint64_t)(atof(words[6]) * 1e9),
		.random = strtoull(words[7], NULL, 10) * 0x9e3779b97f4a7c15ull + 1,
	};
	struct export export = { 0 };
	int fd = try_connect(words[0]);
	/* A server that has just started may be between bind and listen. */
	for (uint64_t started = now_ns(); fd < 0 && errno == ECONNREFUSED; fd = try_connect(words[0])) {
		if (now_ns() - started > LISTEN_LIMIT_MS * 1000000ull) break;
		usleep(READY_POLL_US);
	}
	if (fd < 0) fail("connect to %s: %s", words[0], strerror(errno));
	if (!negotiate(fd, words[1], &export)) fail("no handshake with the server at %s", words[0]);
	if (run.block < 1 || run.block > BLOCK_MAX || run.depth < 1 || run.depth > DEPTH_MAX) fail("invalid block or depth");
	run.blocks = export.size / run.block;
	if (run.blocks == 0) fail("the export is smaller than a block");
	if (run.mode == TRIM && !(export.flags & FLAG_SEND_TRIM)) {
		puts("{\"unsupported\":true}");
	} else {
		struct timeval limit = { .tv_sec = STALL_LIMIT_S };
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
		generate(fd, &run);
	}
	fflush(stdout);
	while (getchar() != EOF) {}
	struct request disconnect = { .magic = htobe32(REQUEST_MAGIC), .type = htobe16(CMD_DISC) };
	send_all(fd, &disconnect, sizeof disconnect);
	close(fd);
}

/* ---- exec to ready ---- */

static void measure_ready(const char *path, const char *name, char **command)
{
	uint64_t started = now_ns();
	int detached = 0;
	pid_t child = fork();
	if (child < 0) fail("fork: %s", strerror(errno));
	if (child == 0) {
		if (freopen("/dev/null", "w", stdout) == NULL) _exit(127);
		execvp(command[0], command);
		_exit(127);
	}
	for (;;) {
		struct export export;
		int fd = try_connect(path);
		if (fd >= 0 && negotiate(fd, name, &export)) {
			printf("{\"ms\":%.3f}\n", (double)(now_ns() - started) / 1e6);
			close(fd);
			break;
		}
		if (fd >= 0) close(fd);
		int status;
		if (!detached && waitpid(child, &status, WNOHANG) == child) {
			if (status != 0) fail("%s ended before it was ready", command[0]);
			detached = 1;
		}
		if (now_ns() - started > READY_LIMIT_MS * 1000000ull) {
			if (!detached) kill(child, SIGKILL);
			fail("%s does not become ready", command[0]);
		}
		usleep(READY_POLL_US);
	}
	if (!detached && waitpid(child, NULL, WNOHANG) != child) {
		kill(child, SIGTERM);
		waitpid(child, NULL, 0);
	}
}

/* ---- the server that does nothing ---- */

static int send_parts(int fd, struct iovec *list, unsigned count)
{
	while (count > 0) {
		struct msghdr message = { .msg_iov = list, .msg_iovlen = count };
		ssize_t sent = sendmsg(fd, &message, MSG_NOSIGNAL);
		if (sent <= 0) return 0;
		while (count > 0 && (size_t)sent >= list->iov_len) sent -= (ssize_t)list->iov_len, list++, count--;
		if (count > 0) list->iov_base = (char *)list->iov_base + sent, list->iov_len -= (size_t)sent;
	}
	return 1;
}

/* Returns when the client has gone. */
static void answer_requests(int fd, uint8_t *bytes, uint8_t *payload)
{
	static struct reply replies[RECEIVE_BYTES / sizeof(struct request)];
	static struct iovec list[1024];
	size_t held = 0;
	/* The request in progress, if there is one, and how much of its payload is still to come. */
	struct request request = { 0 };
	int owed = 0;
	uint64_t skip = 0;
	for (;;) {
		ssize_t got = recv(fd, bytes + held, RECEIVE_BYTES - held, 0);
		if (got <= 0) return;
		size_t length = held + (size_t)got, at = 0;
		unsigned parts_count = 0, replies_count = 0;
		for (;;) {
			size_t skipped = skip < length - at ? skip : length - at;
			skip -= skipped;
			at += skipped;
			if (owed && skip == 0) {
				owed = 0;
				replies[replies_count] = (struct reply){ htobe32(REPLY_MAGIC), 0, request.cookie };
				list[parts_count++] = (struct iovec){ &replies[replies_count++], sizeof(struct reply) };
				if (be16toh(request.type) == CMD_READ)
					list[parts_count++] = (struct iovec){ payload, be32toh(request.length) };
			}
			if (skip > 0 || length - at < sizeof request || parts_count > 1022) break;
			memcpy(&request, bytes + at, sizeof request);
			at += sizeof request;
			if (be16toh(request.type) == CMD_DISC) return;
			if (be16toh(request.type) == CMD_WRITE) skip = be32toh(request.length);
			owed = 1;
		}
		held = length - at;
		memmove(bytes, bytes + at, held);
		if (!send_parts(fd, list, parts_count)) return;
	}
}

int serve_null(const char *path, uint64_t size)
{
	struct sockaddr_un address = address_of(path);
	int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	uint8_t *bytes = allocate(RECEIVE_BYTES), *payload = allocate(BLOCK_MAX);
	unlink(path);
	if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 8))
		fail("listen at %s: %s", path, strerror(errno));
	for (;;) {
		int fd = accept(listener, NULL, NULL);
		if (fd < 0) continue;
		if (answer_options(fd, size, FLAG_HAS_FLAGS | FLAG_SEND_TRIM)) answer_requests(fd, bytes, payload);
		close(fd);
	}
}

int main(int count, char **words)
{
	if (count == 10 && strcmp(words[1], "run") == 0) run_load(words + 2);
	else if (count == 4 && strcmp(words[1], "null") == 0) return serve_null(words[2], strtoull(words[3], NULL, 10));
	else if (count > 4 && strcmp(words[1], "ready") == 0) measure_ready(words[2], words[3], words + 4);
	else fail("usage: see the head of its source");
	return 0;
}
