// SPDX-License-Identifier: MIT
/*
 * A RAM disk on /dev/ublkbN: the C server that the benchmark compares tsbuse's ublk transport with. It has the same
 * loop, the same ring and the same commands, and no library between itself and the kernel.
 *
 *     ublk-peer [--size BYTES] [--number N] [--queues N] [--depth N] [--request-bytes BYTES]
 *               [--copy copied|user-copy|need-get-data]
 *
 * Prints the node's path when it can be opened. SIGTERM and SIGINT stop and delete the device.
 *
 * The three ways to move data, as the driver defines them (linux/ublk_cmd.h, drivers/block/ublk_drv.c):
 *
 *   copied         The kernel copies between the request and a buffer that belongs to the tag; the server copies
 *                  between that buffer and the store.
 *   user-copy      UBLK_F_USER_COPY: the server moves the data itself, by pread and pwrite on /dev/ublkcN, from and to
 *                  the store.
 *   need-get-data  UBLK_F_NEED_GET_DATA: the server names the address when it knows the request, so that the kernel
 *                  copies from and to the store. A write costs a second command.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/io_uring.h>
#include <linux/ioctl.h>
#include <linux/ublk_cmd.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Missing from linux/ublk_cmd.h of Linux 6.1; named as in later headers. */
#ifndef UBLK_U_CMD_GET_FEATURES
#define UBLK_U_CMD_ADD_DEV _IOWR('u', UBLK_CMD_ADD_DEV, struct ublksrv_ctrl_cmd)
#define UBLK_U_CMD_DEL_DEV _IOWR('u', UBLK_CMD_DEL_DEV, struct ublksrv_ctrl_cmd)
#define UBLK_U_CMD_START_DEV _IOWR('u', UBLK_CMD_START_DEV, struct ublksrv_ctrl_cmd)
#define UBLK_U_CMD_STOP_DEV _IOWR('u', UBLK_CMD_STOP_DEV, struct ublksrv_ctrl_cmd)
#define UBLK_U_CMD_SET_PARAMS _IOWR('u', UBLK_CMD_SET_PARAMS, struct ublksrv_ctrl_cmd)
#define UBLK_U_CMD_GET_FEATURES _IOR('u', 0x13, struct ublksrv_ctrl_cmd)
#define UBLK_U_IO_FETCH_REQ _IOWR('u', UBLK_IO_FETCH_REQ, struct ublksrv_io_cmd)
#define UBLK_U_IO_COMMIT_AND_FETCH_REQ _IOWR('u', UBLK_IO_COMMIT_AND_FETCH_REQ, struct ublksrv_io_cmd)
#define UBLK_U_IO_NEED_GET_DATA _IOWR('u', UBLK_IO_NEED_GET_DATA, struct ublksrv_io_cmd)
#define UBLK_F_CMD_IOCTL_ENCODE (1ULL << 6)
#define UBLK_F_USER_COPY (1ULL << 7)
#define UBLK_TAG_OFF 25
#define UBLK_QID_OFF 41
#endif
#ifndef UBLK_U_CMD_DEL_DEV_ASYNC
#define UBLK_U_CMD_DEL_DEV_ASYNC _IOR('u', 0x14, struct ublksrv_ctrl_cmd)
#endif

#define SECTOR_SHIFT 9
#define PAGE_SHIFT 12

enum copy { COPIED, USER_COPY, NEED_GET_DATA };
static const char *const COPY_NAMES[] = { "copied", "user-copy", "need-get-data" };

struct ring {
	int fd;
	unsigned entries;
	size_t sqe_bytes;
	char *rings, *sqes;
	size_t rings_bytes;
	_Atomic unsigned *sq_tail, *cq_head, *cq_tail;
	unsigned *sq_array, sq_mask, cq_mask;
	struct io_uring_cqe *cqes;
	unsigned tail; /* ours, ahead of *sq_tail by the entries queued but not yet submitted */
};

/* Returns 0 or a negative errno. */
static int ring_open(struct ring *ring, unsigned entries, unsigned flags)
{
	struct io_uring_params p = { .flags = flags };

	ring->fd = syscall(SYS_io_uring_setup, entries, &p);
	if (ring->fd < 0)
		return -errno;
	ring->entries = p.sq_entries;
	ring->sqe_bytes = flags & IORING_SETUP_SQE128 ? 128 : 64;
	/* IORING_FEAT_SINGLE_MMAP is older than ublk: one mapping holds both queues. */
	size_t sq_bytes = p.sq_off.array + p.sq_entries * sizeof(unsigned);
	size_t cq_bytes = p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe);
	ring->rings_bytes = sq_bytes > cq_bytes ? sq_bytes : cq_bytes;
	size_t sqes_bytes = p.sq_entries * ring->sqe_bytes;
	ring->rings = mmap(NULL, ring->rings_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, ring->fd, IORING_OFF_SQ_RING);
	ring->sqes = mmap(NULL, sqes_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, ring->fd, IORING_OFF_SQES);
	if (ring->rings == MAP_FAILED || ring->sqes == MAP_FAILED)
		return -errno;
	ring->sq_tail = (_Atomic unsigned *)(ring->rings + p.sq_off.tail);
	ring->sq_mask = *(unsigned *)(ring->rings + p.sq_off.ring_mask);
	ring->sq_array = (unsigned *)(ring->rings + p.sq_off.array);
	ring->cq_head = (_Atomic unsigned *)(ring->rings + p.cq_off.head);
	ring->cq_tail = (_Atomic unsigned *)(ring->rings + p.cq_off.tail);
	ring->cq_mask = *(unsigned *)(ring->rings + p.cq_off.ring_mask);
	ring->cqes = (struct io_uring_cqe *)(ring->rings + p.cq_off.cqes);
	return 0;
}

static void ring_close(struct ring *ring)
{
	munmap(ring->sqes, ring->entries * ring->sqe_bytes);
	munmap(ring->rings, ring->rings_bytes);
	close(ring->fd);
}

static struct io_uring_sqe *ring_sqe(struct ring *ring, unsigned slot)
{
	return (struct io_uring_sqe *)(ring->sqes + slot * ring->sqe_bytes);
}

/* Thanks to the indirection of sq_array, an entry keeps its slot and most of its content for ever. */
static void ring_queue(struct ring *ring, unsigned slot)
{
	ring->sq_array[ring->tail++ & ring->sq_mask] = slot;
}

/* Submits what is queued and waits for `wanted` completions, or a signal. Returns 0 or a negative errno. */
static int ring_enter(struct ring *ring, unsigned wanted)
{
	unsigned queued = ring->tail - atomic_load_explicit(ring->sq_tail, memory_order_relaxed);
	int done;

	atomic_store_explicit(ring->sq_tail, ring->tail, memory_order_release);
	do {
		done = syscall(SYS_io_uring_enter, ring->fd, queued, wanted, IORING_ENTER_GETEVENTS, NULL, 0);
		if (done < 0)
			return errno == EINTR ? 0 : -errno;
		/* The kernel stops at an entry that it refuses, without waiting: submit the rest again. */
		queued -= done;
	} while (queued > 0);
	return 0;
}

static void *map_memory(size_t size)
{
	return mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

struct device {
	struct ring control;
	int control_fd, fd; /* /dev/ublk-control, /dev/ublkcN */
	enum copy copy;
	struct ublksrv_ctrl_dev_info info;
	char *store;
	size_t size;
	sem_t ready; /* posted by each queue, when its ring is set up or has failed */
};

struct queue {
	struct device *device;
	unsigned id;
	pthread_t thread;
	struct ring ring;
	const struct ublksrv_io_desc *iods;
	char *buffers; /* max_io_buf_bytes for each tag */
	int error;
};

/* Runs one control command to its end. Returns its result, or a negative errno. */
static int control(struct device *device, unsigned op, void *argument, size_t length, uint64_t data)
{
	struct io_uring_sqe *sqe = ring_sqe(&device->control, 0);
	struct ublksrv_ctrl_cmd *cmd = (struct ublksrv_ctrl_cmd *)sqe->cmd;

	memset(sqe, 0, device->control.sqe_bytes);
	sqe->opcode = IORING_OP_URING_CMD;
	sqe->fd = device->control_fd;
	sqe->cmd_op = op;
	cmd->dev_id = device->info.dev_id;
	cmd->queue_id = UINT16_MAX;
	cmd->addr = (uintptr_t)argument;
	cmd->len = length;
	cmd->data[0] = data;
	ring_queue(&device->control, 0);
	unsigned head = atomic_load_explicit(device->control.cq_head, memory_order_relaxed);
	while (atomic_load_explicit(device->control.cq_tail, memory_order_acquire) == head) {
		int error = ring_enter(&device->control, 1);
		if (error < 0)
			return error;
	}
	atomic_store_explicit(device->control.cq_head, head + 1, memory_order_release);
	return device->control.cqes[head & device->control.cq_mask].res;
}

/* Moves the data of a request between the tag and the store. Returns bytes or a negative errno. */
static int transfer(struct queue *queue, unsigned tag, bool is_read, char *data, size_t length)
{
	struct device *device = queue->device;
	char *buffer = queue->buffers + (size_t)tag * device->info.max_io_buf_bytes;
	off_t position = UBLKSRV_IO_BUF_OFFSET + ((off_t)queue->id << UBLK_QID_OFF) + ((off_t)tag << UBLK_TAG_OFF);
	ssize_t done = length;

	/* With NEED_GET_DATA the kernel has copied a write to the store, and copies a read from it at the commit. */
	if (device->copy == COPIED)
		memcpy(is_read ? buffer : data, is_read ? data : buffer, length);
	/* A read request is answered by a pwrite to /dev/ublkcN, a write request by a pread. */
	if (device->copy == USER_COPY)
		done = is_read ? pwrite(device->fd, data, length, position) : pread(device->fd, data, length, position);
	return done < 0 ? -errno : done;
}

/* Returns the answer to the request: bytes for READ and WRITE, else 0; or a negative errno. */
static int perform(struct queue *queue, unsigned tag, const struct ublksrv_io_desc *iod)
{
	char *data = queue->device->store + (iod->start_sector << SECTOR_SHIFT);
	size_t length = (size_t)iod->nr_sectors << SECTOR_SHIFT;

	switch (ublksrv_get_op(iod)) {
	case UBLK_IO_OP_READ:
		return transfer(queue, tag, true, data, length);
	case UBLK_IO_OP_WRITE:
		return transfer(queue, tag, false, data, length);
	case UBLK_IO_OP_FLUSH:
		return 0;
	case UBLK_IO_OP_DISCARD:
	case UBLK_IO_OP_WRITE_ZEROES:
		/* Private anonymous memory reads as zeroes afterwards. Blocks are pages, so ranges are whole pages, too. */
		return madvise(data, length, MADV_DONTNEED) < 0 ? -errno : 0;
	default:
		return -EOPNOTSUPP;
	}
}

/* Answers the completion of a tag by queueing the tag's next command. Returns false when the tag is over. */
static bool answer(struct queue *queue, unsigned tag, int result)
{
	struct io_uring_sqe *sqe = ring_sqe(&queue->ring, tag);
	struct ublksrv_io_cmd *cmd = (struct ublksrv_io_cmd *)sqe->cmd;
	const struct ublksrv_io_desc *iod = &queue->iods[tag];

	if (result != UBLK_IO_RES_OK && result != UBLK_IO_RES_NEED_GET_DATA) {
		if (result != UBLK_IO_RES_ABORT)
			queue->error = result;
		return false;
	}
	/* The kernel stores a command's address before it completes the request, and copies a read from there. */
	if (queue->device->copy == NEED_GET_DATA)
		cmd->addr = (uintptr_t)queue->device->store + (iod->start_sector << SECTOR_SHIFT);
	if (result == UBLK_IO_RES_NEED_GET_DATA) {
		sqe->cmd_op = UBLK_U_IO_NEED_GET_DATA;
	} else {
		sqe->cmd_op = UBLK_U_IO_COMMIT_AND_FETCH_REQ;
		cmd->result = perform(queue, tag, iod);
	}
	ring_queue(&queue->ring, tag);
	return true;
}

static int queue_open(struct queue *queue)
{
	struct device *device = queue->device;
	unsigned depth = device->info.queue_depth;
	size_t stride = UBLK_MAX_QUEUE_DEPTH * sizeof(struct ublksrv_io_desc);
	size_t buffer = device->info.max_io_buf_bytes;

	/* DEFER_TASKRUN: the kernel makes completions when this thread enters the ring, and does not interrupt it. */
	int error = ring_open(&queue->ring, depth, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);
	if (error < 0)
		return error;
	/* The driver accepts only this length, rounded up to pages, and only a read-only mapping. */
	queue->iods = mmap(NULL, depth * sizeof(struct ublksrv_io_desc), PROT_READ, MAP_SHARED | MAP_POPULATE,
			   device->fd, UBLKSRV_CMD_BUF_OFFSET + (off_t)(queue->id * stride));
	queue->buffers = device->copy == COPIED ? map_memory(depth * buffer) : NULL;
	if (queue->iods == MAP_FAILED || queue->buffers == MAP_FAILED)
		return -errno;
	for (unsigned tag = 0; tag < depth; tag++) {
		struct io_uring_sqe *sqe = ring_sqe(&queue->ring, tag);
		struct ublksrv_io_cmd *cmd = (struct ublksrv_io_cmd *)sqe->cmd;
		sqe->opcode = IORING_OP_URING_CMD;
		sqe->fd = device->fd;
		sqe->cmd_op = UBLK_U_IO_FETCH_REQ;
		sqe->user_data = tag;
		cmd->q_id = queue->id;
		cmd->tag = tag;
		/* Only the copied way has a buffer before the request; with USER_COPY the driver refuses an address. */
		cmd->addr = queue->buffers == NULL ? 0 : (uintptr_t)queue->buffers + tag * buffer;
		ring_queue(&queue->ring, tag);
	}
	return ring_enter(&queue->ring, 0);
}

/* Takes every completion of a wake-up, then submits all answers and waits in one call, until each tag has ended. */
static void queue_run(struct queue *queue)
{
	struct ring *ring = &queue->ring;
	unsigned left = queue->device->info.queue_depth;

	while (left > 0 && queue->error == 0) {
		queue->error = ring_enter(ring, 1);
		unsigned head = atomic_load_explicit(ring->cq_head, memory_order_relaxed);
		unsigned tail = atomic_load_explicit(ring->cq_tail, memory_order_acquire);
		for (; head != tail; head++) {
			struct io_uring_cqe *cqe = &ring->cqes[head & ring->cq_mask];
			if (!answer(queue, cqe->user_data, cqe->res))
				left--;
		}
		atomic_store_explicit(ring->cq_head, head, memory_order_release);
	}
}

/* The driver binds a queue to the task that fetches, and SINGLE_ISSUER a ring to the task that creates it. */
static void *queue_main(void *argument)
{
	struct queue *queue = argument;

	queue->error = queue_open(queue);
	sem_post(&queue->device->ready);
	if (queue->error == 0)
		queue_run(queue);
	if (queue->error != 0) {
		fprintf(stderr, "ublk-peer: queue %u: %s\n", queue->id, strerror(-queue->error));
		kill(getpid(), SIGTERM);
	}
	return NULL;
}

static void check(int result, const char *what)
{
	if (result >= 0)
		return;
	fprintf(stderr, "ublk-peer: %s: %s\n", what, strerror(-result));
	exit(1);
}

static void device_add(struct device *device)
{
	uint64_t features, wanted = UBLK_F_CMD_IOCTL_ENCODE;

	device->control_fd = open("/dev/ublk-control", O_RDWR | O_CLOEXEC);
	check(device->control_fd < 0 ? -errno : 0, "/dev/ublk-control");
	/* A control command needs 32 bytes; an entry of 64 bytes has room for 16. */
	check(ring_open(&device->control, 1, IORING_SETUP_SQE128), "io_uring_setup");
	check(control(device, UBLK_U_CMD_GET_FEATURES, &features, sizeof(features), 0), "GET_FEATURES");
	if (device->copy == USER_COPY)
		wanted |= UBLK_F_USER_COPY;
	if (device->copy == NEED_GET_DATA)
		wanted |= UBLK_F_NEED_GET_DATA;
	check((features & wanted) == wanted ? 0 : -EOPNOTSUPP, COPY_NAMES[device->copy]);
	device->info.flags = wanted;
	/* The driver answers with the device's number, and with at most one queue for each processor. */
	check(control(device, UBLK_U_CMD_ADD_DEV, &device->info, sizeof(device->info), 0), "ADD_DEV");
}

static int device_set_params(struct device *device)
{
	struct ublk_params params = { .len = sizeof(params), .types = UBLK_PARAM_TYPE_BASIC | UBLK_PARAM_TYPE_DISCARD };

	params.basic = (struct ublk_param_basic){
		.attrs = UBLK_ATTR_VOLATILE_CACHE | UBLK_ATTR_FUA,
		.logical_bs_shift = PAGE_SHIFT,
		.physical_bs_shift = PAGE_SHIFT,
		.io_min_shift = PAGE_SHIFT,
		.io_opt_shift = PAGE_SHIFT,
		.max_sectors = device->info.max_io_buf_bytes >> SECTOR_SHIFT,
		.dev_sectors = device->size >> SECTOR_SHIFT,
	};
	/* The driver requires a single segment and a granularity other than 0. */
	params.discard = (struct ublk_param_discard){
		.discard_granularity = 1 << PAGE_SHIFT,
		.max_discard_sectors = UINT32_MAX >> SECTOR_SHIFT,
		.max_write_zeroes_sectors = UINT32_MAX >> SECTOR_SHIFT,
		.max_discard_segments = 1,
	};
	return control(device, UBLK_U_CMD_SET_PARAMS, &params, sizeof(params), 0);
}

/* Serves until SIGTERM or SIGINT, which every thread blocks. Returns 0 or a negative errno. */
static int device_serve(struct device *device, struct queue *queues)
{
	sigset_t signals;
	char path[32];
	int signal, error = device_set_params(device);

	snprintf(path, sizeof(path), "/dev/ublkc%u", device->info.dev_id);
	device->fd = open(path, O_RDWR | O_CLOEXEC);
	if (error < 0 || device->fd < 0)
		return error < 0 ? error : -errno;
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	pthread_sigmask(SIG_BLOCK, &signals, NULL);
	unsigned count = device->info.nr_hw_queues;
	for (unsigned id = 0; id < count; id++) {
		queues[id] = (struct queue){ .device = device, .id = id };
		check(-pthread_create(&queues[id].thread, NULL, queue_main, &queues[id]), "pthread_create");
	}
	for (unsigned id = 0; id < count; id++)
		sem_wait(&device->ready);
	for (unsigned id = 0; id < count && error == 0; id++)
		error = queues[id].error;
	/* START_DEV waits until all tags are fetched, and reads the partition table: the queues must be serving. */
	if (error == 0)
		error = control(device, UBLK_U_CMD_START_DEV, NULL, 0, getpid());
	if (error == 0) {
		printf("/dev/ublkb%u\n", device->info.dev_id);
		fflush(stdout);
		sigwait(&signals, &signal);
	}
	/* Requests in flight are still answered; then every tag completes with UBLK_IO_RES_ABORT. */
	control(device, UBLK_U_CMD_STOP_DEV, NULL, 0, 0);
	for (unsigned id = 0; id < count; id++) {
		pthread_join(queues[id].thread, NULL);
		munmap((void *)queues[id].iods, device->info.queue_depth * sizeof(struct ublksrv_io_desc));
		ring_close(&queues[id].ring);
	}
	close(device->fd);
	return error;
}

static enum copy parse_copy(const char *text)
{
	for (enum copy copy = COPIED; copy <= NEED_GET_DATA; copy++)
		if (strcmp(text, COPY_NAMES[copy]) == 0)
			return copy;
	check(-EINVAL, text);
	return COPIED;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "size", required_argument, NULL, 's' },          { "number", required_argument, NULL, 'n' },
		{ "queues", required_argument, NULL, 'q' },        { "depth", required_argument, NULL, 'd' },
		{ "request-bytes", required_argument, NULL, 'r' }, { "copy", required_argument, NULL, 'c' },
		{ 0 },
	};
	struct device device = {
		.size = 256 << 20,
		.info = { .nr_hw_queues = 1, .queue_depth = 128, .max_io_buf_bytes = 512 << 10, .dev_id = UINT32_MAX },
	};

	for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
		switch (option) {
		case 's': device.size = strtoull(optarg, NULL, 10); break;
		case 'n': device.info.dev_id = strtoul(optarg, NULL, 10); break;
		case 'q': device.info.nr_hw_queues = strtoul(optarg, NULL, 10); break;
		case 'd': device.info.queue_depth = strtoul(optarg, NULL, 10); break;
		case 'r': device.info.max_io_buf_bytes = strtoul(optarg, NULL, 10); break;
		case 'c': device.copy = parse_copy(optarg); break;
		default: return 2;
		}
	}
	device.store = map_memory(device.size);
	check(device.store == MAP_FAILED ? -errno : 0, "the store");
	/* As in tsbuse's RAM disk: memory is allocated and given back by pages. */
	madvise(device.store, device.size, MADV_NOHUGEPAGE);
	sem_init(&device.ready, 0, 0);
	device_add(&device);
	struct queue *queues = calloc(device.info.nr_hw_queues, sizeof(*queues));
	int error = device_serve(&device, queues);
	/* DEL_DEV waits for the last opener of the node. */
	if (control(&device, UBLK_U_CMD_DEL_DEV_ASYNC, NULL, 0, 0) == -EOPNOTSUPP)
		control(&device, UBLK_U_CMD_DEL_DEV, NULL, 0, 0);
	check(error, "the device");
	return 0;
}
