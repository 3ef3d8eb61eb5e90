/**
 * How an ioctl number is put together: include/uapi/asm-generic/ioctl.h. The same on x86-64 and arm64.
 */
const _IOC_NRSHIFT = 0;
const _IOC_TYPESHIFT = 8;
const _IOC_SIZESHIFT = 16;
const _IOC_DIRSHIFT = 30;

const _IOC_NONE = 0;
const _IOC_WRITE = 1;
const _IOC_READ = 2;

function _IOC(dir: number, type: number, nr: number, size: number): number {
  const low = (type << _IOC_TYPESHIFT) | (nr << _IOC_NRSHIFT) | (size << _IOC_SIZESHIFT);
  return (low | (dir << _IOC_DIRSHIFT)) >>> 0;
}

/** An ioctl whose argument is a number or nothing. */
export const _IO = (type: number, nr: number): number => _IOC(_IOC_NONE, type, nr, 0);

/** An ioctl that fills `size` bytes of the caller's. */
export const _IOR = (type: number, nr: number, size: number): number => _IOC(_IOC_READ, type, nr, size);

/** An ioctl that reads and fills `size` bytes of the caller's. */
export const _IOWR = (type: number, nr: number, size: number): number =>
  _IOC(_IOC_READ | _IOC_WRITE, type, nr, size);
