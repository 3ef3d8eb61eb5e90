#!/bin/busybox sh
# The minimum for a rescue system: sh serve.sh TSBUSE serves a RAM disk of 64 MiB, makes a file system on it, writes
# 4 MiB and reads them back.
set -e
"$1" ramdisk 64M /dev/nbd0 --initrd
busybox mke2fs -F /dev/nbd0 >/dev/null
busybox mkdir /mnt
busybox mount -t ext4 /dev/nbd0 /mnt
busybox dd if=/dev/urandom of=/mnt/file bs=64k count=64 2>/dev/null
before=$(busybox sha256sum </mnt/file)
busybox umount /mnt
echo 3 >/proc/sys/vm/drop_caches
busybox mount -t ext4 /dev/nbd0 /mnt
[ "$before" = "$(busybox sha256sum </mnt/file)" ]
echo "all done"
