// SPDX-License-Identifier: MIT
/*
 * A RAM disk for NBD clients on a Unix socket: the C server that the benchmark compares tsbuse's request loop with. It
 * has one thread, makes the same system calls on the same kind of memory, and does the work between them in C: the
 * difference is the cost of the language. One client at a time; a violation of the protocol ends the connection.
 *
 *     nbd-peer SOCKET BYTES
 *
 * It has the parts of src/nbd/connection/ and devices/ramdisk.ts. Keep its numbers in step with theirs by hand.
 */
#define _GNU_SOURCE
#include <endian.h>
#include <errno.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "nbd-wire.h"

/* Bytes to receive at once: many while requests are short, only headers after a long write. */
enum { INBOX_BYTES = 128 << 10, INBOX_BYTES_LONG = 4096, LONG_PAYLOAD = 32 << 10 };
/* Replies are sent when one of these is reached. */
enum { REPLIES_FULL = (24 << 10) / sizeof(struct reply), PAYLOAD_BYTES_FULL = 1 << 20, IOVECS_MAX = 1024 };
enum { REQUEST_BYTES_MAX = 32 << 20, SOCKET_BUFFER_BYTES = 1 << 20, ALONE_US = 10000 };
/* How long a wait polls before it sleeps: see src/serving/halt-poll.ts. */
enum { POLL_NS_FIRST = 10000, POLL_NS_MOST = 50000 };

enum { CHUNK_SHIFT = 16, CHUNK_BYTES = 1 << CHUNK_SHIFT };
enum state { NEVER_WRITTEN, WRITTEN, GIVEN_BACK };

struct disk {
	uint8_t *bytes, *chunks;
	uint64_t size;
};

struct connection {
	struct disk *disk;
	int fd;
	/* From `at` to `end`: received and not decoded yet. */
	uint8_t *inbox;
	size_t at, end, limit;
	/* The write whose payload is still to come: its destination, the bytes left, and its cookie. */
	uint8_t *payload;
	size_t payload_left;
	uint64_t payload_cookie;
	/* The last receive emptied the socket. */
	bool drained;
	/* How long the next wait polls before it sleeps: for a request, and for the rest of a payload. */
	int64_t request_poll_ns, payload_poll_ns;
	struct reply replies[REPLIES_FULL + 1];
	struct iovec iovecs[IOVECS_MAX];
	size_t reply_count, iovec_count, payload_bytes;
};

static bool may_poll;

static int64_t now_ns(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000ll + time.tv_nsec;
}

/* ---- the disk ---- */

static void note_write(struct disk *disk, uint64_t offset, uint64_t length)
{
	uint64_t last = (offset + length - 1) >> CHUNK_SHIFT;
	for (uint64_t chunk = offset >> CHUNK_SHIFT; chunk <= last; chunk++)
		if (disk->chunks[chunk] != WRITTEN) disk->chunks[chunk] = WRITTEN;
}

/* Gives back the memory written since the last trim. Blocks are pages, so ranges are whole pages, too. */
static bool trim(struct disk *disk, uint64_t offset, uint64_t length)
{
	uint64_t end = offset + length;
	for (uint64_t at = offset, next; at < end; at = next) {
		next = ((at >> CHUNK_SHIFT) + 1) << CHUNK_SHIFT;
		if (disk->chunks[at >> CHUNK_SHIFT] != WRITTEN) continue;
		while (next < end && disk->chunks[next >> CHUNK_SHIFT] == WRITTEN) next += CHUNK_BYTES;
		if (next > end) next = end;
		for (uint64_t chunk = (at + CHUNK_BYTES - 1) >> CHUNK_SHIFT; (chunk + 1) << CHUNK_SHIFT <= next; chunk++)
			disk->chunks[chunk] = GIVEN_BACK;
		if (madvise(disk->bytes + at, next - at, MADV_DONTNEED) < 0) return false;
	}
	return true;
}

/* ---- replies ---- */

static void queue_reply(struct connection *c, uint64_t cookie)
{
	struct reply *reply = &c->replies[c->reply_count++];
	*reply = (struct reply){ htobe32(REPLY_MAGIC), 0, cookie };
	struct iovec *last = &c->iovecs[c->iovec_count - 1];
	/* Adjacent headers share an entry. */
	if (c->iovec_count > 0 && (uint8_t *)last->iov_base + last->iov_len == (uint8_t *)reply)
		last->iov_len += sizeof *reply;
	else
		c->iovecs[c->iovec_count++] = (struct iovec){ reply, sizeof *reply };
}

static void queue_data(struct connection *c, uint8_t *data, size_t length)
{
	c->iovecs[c->iovec_count++] = (struct iovec){ data, length };
	c->payload_bytes += length;
}

static bool is_full(const struct connection *c)
{
	return c->payload_bytes >= PAYLOAD_BYTES_FULL || c->iovec_count >= IOVECS_MAX - 1 || c->reply_count >= REPLIES_FULL;
}

static bool send_replies(struct connection *c)
{
	struct iovec *list = c->iovecs;
	size_t count = c->iovec_count;
	while (count > 0) {
		struct msghdr message = { .msg_iov = list, .msg_iovlen = count };
		ssize_t sent = sendmsg(c->fd, &message, MSG_NOSIGNAL);
		if (sent < 0 && (errno == EAGAIN || errno == EINTR)) continue;
		if (sent < 0) return false;
		for (; count > 0 && (size_t)sent >= list->iov_len; list++, count--) sent -= (ssize_t)list->iov_len;
		if (sent > 0) {
			list->iov_base = (uint8_t *)list->iov_base + sent;
			list->iov_len -= (size_t)sent;
		}
	}
	c->reply_count = c->iovec_count = c->payload_bytes = 0;
	return true;
}

/* ---- requests ---- */

/* Copies the part of the payload that has arrived to its place; the rest is received there directly. */
static void begin_write(struct connection *c, uint64_t offset, size_t length, uint64_t cookie)
{
	size_t here = c->end - c->at < length ? c->end - c->at : length;
	note_write(c->disk, offset, length);
	memcpy(c->disk->bytes + offset, c->inbox + c->at, here);
	c->at += here;
	c->payload = c->disk->bytes + offset + here;
	c->payload_left = length - here;
	c->payload_cookie = cookie;
	c->limit = length >= LONG_PAYLOAD ? INBOX_BYTES_LONG : INBOX_BYTES;
	if (c->payload_left == 0) queue_reply(c, cookie);
}

/* Performs the request at `at`. Returns false when the connection is over. */
static bool perform(struct connection *c)
{
	struct request *request = (struct request *)(c->inbox + c->at);
	uint16_t command = be16toh(request->type);
	uint64_t offset = be64toh(request->from), cookie = request->cookie;
	uint32_t length = be32toh(request->length);
	if (be32toh(request->magic) != REQUEST_MAGIC || command == CMD_DISC) return false;
	bool in_range = length > 0 && length <= c->disk->size && offset <= c->disk->size - length;
	if (command != CMD_FLUSH && (!in_range || ((offset | length) & 4095) != 0)) return false;
	if (command != CMD_TRIM && length > REQUEST_BYTES_MAX) return false;
	c->at += sizeof *request;
	switch (command) {
	case CMD_READ:
		queue_reply(c, cookie);
		queue_data(c, c->disk->bytes + offset, length);
		return true;
	case CMD_WRITE:
		begin_write(c, offset, length, cookie);
		return true;
	case CMD_TRIM:
		if (!trim(c->disk, offset, length)) return false;
		queue_reply(c, cookie);
		return true;
	case CMD_FLUSH:
		queue_reply(c, cookie);
		return true;
	default:
		return false;
	}
}

/* ---- receiving ---- */

static ssize_t receive_headers(struct connection *c, int flags)
{
	/* What is left is less than a header. */
	memmove(c->inbox, c->inbox + c->at, c->end - c->at);
	c->end -= c->at;
	c->at = 0;
	size_t room = c->limit - c->end;
	ssize_t got = recv(c->fd, c->inbox + c->end, room, flags);
	c->drained = got < (ssize_t)room;
	if (got > 0) c->end += (size_t)got;
	return got;
}

/* Receives the rest of a payload to its place, and what follows it to the inbox, which is empty. */
static ssize_t receive_payload(struct connection *c, int flags)
{
	struct iovec parts[2] = { { c->payload, c->payload_left }, { c->inbox, c->limit } };
	struct msghdr message = { .msg_iov = parts, .msg_iovlen = 2 };
	c->at = c->end = 0;
	ssize_t got = recvmsg(c->fd, &message, flags);
	c->drained = got < (ssize_t)(c->payload_left + c->limit);
	if (got <= 0) return got;
	size_t moved = (size_t)got < c->payload_left ? (size_t)got : c->payload_left;
	c->payload += moved;
	c->payload_left -= moved;
	c->end = (size_t)got - moved;
	if (c->payload_left == 0) queue_reply(c, c->payload_cookie);
	return got;
}

static ssize_t receive_once(struct connection *c, int flags)
{
	return c->payload_left > 0 ? receive_payload(c, flags) : receive_headers(c, flags);
}

/* A short wait that had to sleep makes the next one poll longer; a long one stops polling. KVM's halt polling. */
static void adapt(int64_t *poll_ns, int64_t took_ns)
{
	if (took_ns > POLL_NS_MOST || !may_poll) *poll_ns = 0;
	else if (*poll_ns == 0) *poll_ns = POLL_NS_FIRST;
	else *poll_ns = 2 * *poll_ns < POLL_NS_MOST ? 2 * *poll_ns : POLL_NS_MOST;
}

/* Polls for a while, then sleeps. Returns what recv(2) does. */
static ssize_t await(struct connection *c)
{
	int64_t *poll_ns = c->payload_left > 0 ? &c->payload_poll_ns : &c->request_poll_ns;
	int64_t started = now_ns();
	if (*poll_ns > 0) {
		do {
			ssize_t got = receive_once(c, MSG_DONTWAIT);
			if (got >= 0 || errno != EAGAIN) return got;
		} while (now_ns() - started < *poll_ns);
	}
	ssize_t got = receive_once(c, 0);
	int reason = errno;
	adapt(poll_ns, now_ns() - started);
	errno = reason;
	return got;
}

static void serve(struct connection *c)
{
	for (;;) {
		while (c->payload_left == 0 && c->end - c->at >= sizeof(struct request) && !is_full(c))
			if (!perform(c)) return;
		bool full = is_full(c);
		if (!send_replies(c)) return;
		if (full) continue;
		ssize_t got = c->drained ? await(c) : receive_once(c, MSG_DONTWAIT);
		if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) return;
	}
}

/* ---- the server ---- */

static void check(bool ok, const char *what)
{
	if (ok) return;
	perror(what);
	exit(1);
}

static void *map_memory(size_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	check(memory != MAP_FAILED, "mmap");
	/* As in tsbuse's RAM disk: memory is allocated and given back by pages. */
	madvise(memory, size, MADV_NOHUGEPAGE);
	return memory;
}

static int listen_at(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	errno = ENAMETOOLONG;
	check(strlen(path) < sizeof address.sun_path, path);
	strcpy(address.sun_path, path);
	unlink(path);
	check(bind(fd, (struct sockaddr *)&address, sizeof address) == 0 && listen(fd, 8) == 0, path);
	return fd;
}

static void set_options(int fd)
{
	int bytes = SOCKET_BUFFER_BYTES;
	struct timeval limit = { .tv_usec = ALONE_US };
	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes) < 0)
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
}

/* On a single processor, a server that polls keeps its client from running. */
static bool has_processors(void)
{
	cpu_set_t processors;
	return sched_getaffinity(0, sizeof processors, &processors) == 0 && CPU_COUNT(&processors) > 1;
}

int main(int count, char **words)
{
	if (count != 3) {
		fputs("usage: nbd-peer SOCKET BYTES\n", stderr);
		return 2;
	}
	struct disk disk = { .size = strtoull(words[2], NULL, 10) & ~4095ull };
	disk.bytes = map_memory(disk.size);
	disk.chunks = map_memory((disk.size >> CHUNK_SHIFT) + 1);
	uint8_t *inbox = map_memory(INBOX_BYTES);
	static struct connection connection;
	int listener = listen_at(words[1]);
	may_poll = has_processors();
	for (;;) {
		int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		if (fd < 0) continue;
		connection = (struct connection){ .disk = &disk, .fd = fd, .inbox = inbox, .limit = INBOX_BYTES };
		if (answer_options(fd, disk.size, FLAG_HAS_FLAGS | FLAG_SEND_FLUSH | FLAG_SEND_TRIM)) {
			set_options(fd);
			serve(&connection);
		}
		close(fd);
	}
}
