/** include/uapi/linux/module.h. */

/** finit_module(2): the file is compressed as /sys/module/compression says. Since Linux 5.17. */
export const MODULE_INIT_COMPRESSED_FILE = 4;
