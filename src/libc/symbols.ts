/**
 * Every C function that this project calls, each argument with its C declaration, so that the table can be compared
 * with the manual pages. `size_t` and file offsets are `u64_fast`/`i64_fast`: numbers while they are exact, up to 2^53,
 * and so always here. An argument `ptr` takes an address as a number, or a typed array.
 */
import { type FFIFunction, FFIType } from "bun:ffi";

const { ptr, cstring, i32, u32, i64_fast, u64_fast } = FFIType;

export const symbols = {
  // errno(3): the thread's errno. glibc and musl agree on this name.
  __errno_location: { args: [], returns: u64_fast },
  // strerror(3): char *strerror(int errnum)
  strerror: { args: [i32], returns: cstring },

  // open(2): int open(const char *pathname, int flags, mode_t mode)
  open: { args: [ptr, i32, u32], returns: i32 },
  // close(2): int close(int fd)
  close: { args: [i32], returns: i32 },
  // dup2(2): int dup2(int oldfd, int newfd)
  dup2: { args: [i32, i32], returns: i32 },
  // fcntl(2): int fcntl(int fd, int op, int argument)
  fcntl: { args: [i32, i32, i32], returns: i32 },
  // lseek(2): off_t lseek(int fd, off_t offset, int whence)
  lseek: { args: [i32, i64_fast, i32], returns: i64_fast },
  // read(2): ssize_t read(int fd, void *buf, size_t count)
  read: { args: [i32, ptr, u64_fast], returns: i64_fast },
  // write(2): ssize_t write(int fd, const void *buf, size_t count)
  write: { args: [i32, ptr, u64_fast], returns: i64_fast },
  // pread(2): ssize_t pread(int fd, void *buf, size_t count, off_t offset)
  pread: { args: [i32, ptr, u64_fast, i64_fast], returns: i64_fast },
  // pwrite(2): ssize_t pwrite(int fd, const void *buf, size_t count, off_t offset)
  pwrite: { args: [i32, ptr, u64_fast, i64_fast], returns: i64_fast },
  // isatty(3): int isatty(int fd)
  isatty: { args: [i32], returns: i32 },
  // fsync(2): int fsync(int fd)
  fsync: { args: [i32], returns: i32 },
  // fdatasync(2): int fdatasync(int fd)
  fdatasync: { args: [i32], returns: i32 },
  // syncfs(2): int syncfs(int fd)
  syncfs: { args: [i32], returns: i32 },
  // fallocate(2): int fallocate(int fd, int mode, off_t offset, off_t len)
  fallocate: { args: [i32, i32, i64_fast, i64_fast], returns: i32 },
  // ftruncate(2): int ftruncate(int fd, off_t length)
  ftruncate: { args: [i32, i64_fast], returns: i32 },
  // flock(2): int flock(int fd, int operation)
  flock: { args: [i32, i32], returns: i32 },
  // ioctl(2): int ioctl(int fd, unsigned long op, unsigned long argument)
  ioctl: { args: [i32, u64_fast, u64_fast], returns: i32 },

  // socket(2): int socket(int domain, int type, int protocol)
  socket: { args: [i32, i32, i32], returns: i32 },
  // connect(2): int connect(int sockfd, const struct sockaddr *addr, socklen_t addrlen)
  connect: { args: [i32, ptr, u32], returns: i32 },
  // bind(2): int bind(int sockfd, const struct sockaddr *addr, socklen_t addrlen)
  bind: { args: [i32, ptr, u32], returns: i32 },
  // listen(2): int listen(int sockfd, int backlog)
  listen: { args: [i32, i32], returns: i32 },
  // accept4(2): int accept4(int sockfd, struct sockaddr *addr, socklen_t *addrlen, int flags)
  accept4: { args: [i32, ptr, ptr, i32], returns: i32 },
  // getsockname(2): int getsockname(int sockfd, struct sockaddr *addr, socklen_t *addrlen)
  getsockname: { args: [i32, ptr, ptr], returns: i32 },
  // inet_pton(3): int inet_pton(int af, const char *src, void *dst)
  inet_pton: { args: [i32, ptr, ptr], returns: i32 },
  // poll(2): int poll(struct pollfd *fds, nfds_t nfds, int timeout)
  poll: { args: [ptr, u64_fast, i32], returns: i32 },
  // socketpair(2): int socketpair(int domain, int type, int protocol, int sv[2])
  socketpair: { args: [i32, i32, i32, ptr], returns: i32 },
  // setsockopt(2): int setsockopt(int sockfd, int level, int optname, const void *optval, socklen_t optlen)
  setsockopt: { args: [i32, i32, i32, ptr, u32], returns: i32 },
  // recv(2): ssize_t recv(int sockfd, void *buf, size_t len, int flags)
  recv: { args: [i32, ptr, u64_fast, i32], returns: i64_fast },
  // recvmsg(2): ssize_t recvmsg(int sockfd, struct msghdr *msg, int flags)
  recvmsg: { args: [i32, ptr, i32], returns: i64_fast },
  // sendto(2): ssize_t sendto(int fd, const void *buf, size_t len, int flags, const struct sockaddr *, socklen_t)
  sendto: { args: [i32, ptr, u64_fast, i32, ptr, u32], returns: i64_fast },
  // sendmsg(2): ssize_t sendmsg(int sockfd, const struct msghdr *msg, int flags)
  sendmsg: { args: [i32, ptr, i32], returns: i64_fast },
  // shutdown(2): int shutdown(int sockfd, int how)
  shutdown: { args: [i32, i32], returns: i32 },

  // mmap(2): void *mmap(void *addr, size_t length, int prot, int flags, int fd, off_t offset)
  mmap: { args: [u64_fast, u64_fast, i32, i32, i32, i64_fast], returns: i64_fast },
  // munmap(2): int munmap(void *addr, size_t length)
  munmap: { args: [u64_fast, u64_fast], returns: i32 },
  // mprotect(2): int mprotect(void *addr, size_t len, int prot)
  mprotect: { args: [u64_fast, u64_fast, i32], returns: i32 },
  // madvise(2): int madvise(void *addr, size_t length, int advice)
  madvise: { args: [u64_fast, u64_fast, i32], returns: i32 },
  // mincore(2): int mincore(void *addr, size_t length, unsigned char *vec)
  mincore: { args: [u64_fast, u64_fast, ptr], returns: i32 },
  // mlockall(2): int mlockall(int flags)
  mlockall: { args: [i32], returns: i32 },
  // memcpy(3): void *memcpy(void *dest, const void *src, size_t n)
  memcpy: { args: [ptr, ptr, u64_fast], returns: FFIType.void },
  // memcmp(3): int memcmp(const void *s1, const void *s2, size_t n)
  memcmp: { args: [ptr, ptr, u64_fast], returns: i32 },
  // memset(3): void *memset(void *s, int c, size_t n)
  memset: { args: [ptr, i32, u64_fast], returns: FFIType.void },

  // getpagesize(2): int getpagesize(void)
  getpagesize: { args: [], returns: i32 },

  // prctl(2): int prctl(int op, unsigned long, unsigned long, unsigned long, unsigned long)
  prctl: { args: [i32, u64_fast, u64_fast, u64_fast, u64_fast], returns: i32 },
  // waitpid(2): pid_t waitpid(pid_t pid, int *status, int options)
  waitpid: { args: [i32, u64_fast, i32], returns: i32 },
  // execv(3): int execv(const char *path, char *const argv[])
  execv: { args: [ptr, ptr], returns: i32 },
  // sigfillset(3): int sigfillset(sigset_t *set)
  sigfillset: { args: [ptr], returns: i32 },
  // sigprocmask(2): int sigprocmask(int how, const sigset_t *set, sigset_t *oldset)
  sigprocmask: { args: [i32, ptr, ptr], returns: i32 },
  // sigaction(2): int sigaction(int signum, const struct sigaction *act, struct sigaction *oldact)
  sigaction: { args: [i32, ptr, ptr], returns: i32 },
  // alarm(2): unsigned int alarm(unsigned int seconds)
  alarm: { args: [u32], returns: u32 },
  // chroot(2): int chroot(const char *path)
  chroot: { args: [ptr], returns: i32 },
  // setsid(2): pid_t setsid(void)
  setsid: { args: [], returns: i32 },
  // eventfd(2): int eventfd(unsigned int initval, int flags)
  eventfd: { args: [u32, i32], returns: i32 },
} as const satisfies Record<string, FFIFunction>;

/**
 * System calls that have no function in some C libraries. Each is a syscall(2) with the argument list of one call,
 * the number first. long syscall(long number, ...)
 */
export const systemCalls = {
  // mknod(2): int mknodat(int dirfd, const char *pathname, mode_t mode, dev_t dev)
  mknodat: { args: [i64_fast, i32, ptr, u32, u64_fast], returns: i64_fast },
  // preadv2(2): ssize_t preadv2(int fd, const struct iovec *iov, int iovcnt, off_t offset, 0, int flags)
  preadv2: { args: [i64_fast, i32, ptr, i32, i64_fast, i32, i32], returns: i64_fast },
  // pwritev2(2): ssize_t pwritev2(int fd, const struct iovec *iov, int iovcnt, off_t offset, 0, int flags)
  pwritev2: { args: [i64_fast, i32, ptr, i32, i64_fast, i32, i32], returns: i64_fast },
  // finit_module(2): int finit_module(int fd, const char *param_values, int flags)
  finit_module: { args: [i64_fast, i32, ptr, i32], returns: i64_fast },
  // init_module(2): int init_module(void *module_image, unsigned long len, const char *param_values)
  init_module: { args: [i64_fast, ptr, u64_fast, ptr], returns: i64_fast },
  // sched_setscheduler(2): int sched_setscheduler(pid_t pid, int policy, const struct sched_param *param)
  sched_setscheduler: { args: [i64_fast, i32, i32, ptr], returns: i64_fast },
  // memfd_create(2): int memfd_create(const char *name, unsigned int flags)
  memfd_create: { args: [i64_fast, ptr, u32], returns: i64_fast },
  // pidfd_send_signal(2): int pidfd_send_signal(int pidfd, int sig, siginfo_t *info, unsigned int flags)
  pidfd_send_signal: { args: [i64_fast, i32, i32, ptr, u32], returns: i64_fast },
  // pidfd_open(2): int pidfd_open(pid_t pid, unsigned int flags)
  pidfd_open: { args: [i64_fast, i32, u32], returns: i64_fast },
  // pidfd_getfd(2): int pidfd_getfd(int pidfd, int targetfd, unsigned int flags)
  pidfd_getfd: { args: [i64_fast, i32, i32, u32], returns: i64_fast },
  // io_uring_setup(2): int io_uring_setup(u32 entries, struct io_uring_params *p)
  io_uring_setup: { args: [i64_fast, u32, ptr], returns: i64_fast },
  // io_uring_enter(2): int io_uring_enter(unsigned int fd, to_submit, min_complete, flags, sigset_t *sig, size_t size)
  io_uring_enter: { args: [i64_fast, u32, u32, u32, u32, u64_fast, u64_fast], returns: i64_fast },
  // io_uring_register(2): int io_uring_register(unsigned int fd, opcode, void *arg, unsigned int nr_args)
  io_uring_register: { args: [i64_fast, u32, u32, ptr, u32], returns: i64_fast },
} as const satisfies Record<string, FFIFunction>;
