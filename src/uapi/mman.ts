/** include/uapi/asm-generic/mman-common.h and include/uapi/linux/mman.h. */
export const PROT_READ = 0x1;
export const PROT_WRITE = 0x2;
export const PROT_EXEC = 0x4;

export const MAP_SHARED = 0x01;
export const MAP_PRIVATE = 0x02;
export const MAP_ANONYMOUS = 0x20;
export const MAP_NORESERVE = 0x4000;
export const MAP_POPULATE = 0x8000;

export const MADV_DONTNEED = 4;
export const MADV_REMOVE = 9;
export const MADV_HUGEPAGE = 14;
export const MADV_NOHUGEPAGE = 15;
export const MADV_DONTDUMP = 16;
/** Both since Linux 5.14. */
export const MADV_POPULATE_READ = 22;
export const MADV_POPULATE_WRITE = 23;

/** memfd_create(2). */
export const MFD_CLOEXEC = 1;
/** Both since Linux 6.3. */
export const MFD_NOEXEC_SEAL = 8;
export const MFD_EXEC = 0x10;
export const MCL_CURRENT = 1;
export const MCL_FUTURE = 2;
export const MCL_ONFAULT = 4;
