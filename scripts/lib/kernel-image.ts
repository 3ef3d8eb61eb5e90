/**
 * The kernel without its wrapping. QEMU's firmware and the decompressor of a bzImage take a second under software
 * emulation. QEMU starts the plain ELF image inside directly, which takes no time.
 */

/** Fields of the boot protocol's setup header, by offset (Documentation/arch/x86/boot.rst). */
const SETUP_SECTS = 0x1f1;
const PAYLOAD_OFFSET = 0x248;
const PAYLOAD_LENGTH = 0x24c;

/** The payload ends with its unpacked size, which is not part of the compressed stream. */
const SIZE_TRAILER_LENGTH = 4;

const ZSTD_MAGIC = 0xfd2fb528;
const GZIP_MAGIC = 0x088b1f;

/**
 * The ELF image inside a bzImage. Returns the bzImage itself if it uses another compression than zstd or gzip: it
 * boots, too, only later.
 */
export function unwrapKernelImage(bzImage: Uint8Array): Uint8Array {
  const header = new DataView(bzImage.buffer, bzImage.byteOffset, bzImage.byteLength);
  const payload = (header.getUint8(SETUP_SECTS) + 1) * 512 + header.getUint32(PAYLOAD_OFFSET, true);
  const length = header.getUint32(PAYLOAD_LENGTH, true) - SIZE_TRAILER_LENGTH;
  const compressed = new Uint8Array(bzImage.subarray(payload, payload + length));
  const magic = header.getUint32(payload, true);
  if (magic === ZSTD_MAGIC) return Bun.zstdDecompressSync(compressed);
  return (magic & 0xffffff) === GZIP_MAGIC ? Bun.gunzipSync(compressed) : bzImage;
}
