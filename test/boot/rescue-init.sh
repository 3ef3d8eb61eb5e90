#!/bin/busybox sh
# The first process of a rescue system that holds busybox, tsbuse and two modules. /readme.sh has the commands of docs/rescue.md.
# With "devtmpfs=no" on the kernel's command line, /dev has only what is made here.
say() { echo "tsbuse-boot: $*"; }
fail() {
  say "FAILED: $*"
  dmesg | tail -n 40
  /bin/busybox poweroff -f
}
must() { "$@" || fail "$* ended with $?"; }

# The shell runs its other commands by way of /proc.
/bin/busybox mount -t proc proc /proc
mount -t sysfs sysfs /sys
read -r command_line </proc/cmdline
case $command_line in
  *devtmpfs=no*)
    mknod /dev/urandom c 1 9
    ;;
  *) mount -t devtmpfs devtmpfs /dev ;;
esac
say begin

# The archive has replaced nothing: neither the loader that was there nor the link that /usr is.
for path in /foreign/*; do
  [ -e "$path" ] || continue
  must cmp "$path" "/lib64/${path##*/}"
  must [ -L /usr ]
  say "kept ${path##*/}"
done
say "unpacked $(du -sk /usr/lib/tsbuse/ | cut -f 1) KiB"
say "modules $(cd /lib/modules/*/ && find . -name '*.ko*' | sort | tr '\n' ' ')"
must [ ! -e /sys/block/nbd0 ]

must sh -e /readme.sh
say "attached $(cat /sys/block/nbd0/size) sectors"
# A file of blocks of 1 KiB, up to the last one that is free.
dd if=/dev/urandom of=/mnt/file bs=64k 2>/dev/null && fail "the device took more than it has"
say "written $(wc -c </mnt/file)"
before=$(sha256sum </mnt/file)
must umount /mnt
echo 3 >/proc/sys/vm/drop_caches
must mount /dev/nbd0 /mnt
[ "$before" = "$(sha256sum </mnt/file)" ] || fail "what was read is not what was written"
say "read back"
server=$(cat /sys/block/nbd0/pid)
say "argv $(cut -c 1 "/proc/$server/cmdline" | head -n 1)"
say "resident $(sed -n 's/^VmRSS:[ \t]*//p' "/proc/$server/status")"
say "available $(sed -n 's/^MemAvailable:[ \t]*//p' /proc/meminfo)"
must umount /mnt
must tsbuse disconnect /dev/nbd0
must [ "$(cat /sys/block/nbd0/size)" = 0 ]
say "detached"

must sh -e /readme.sh
mkdir /mnt/bin /mnt/sbin /mnt/proc /mnt/sys /mnt/dev
must cp /bin/busybox /mnt/bin/busybox
ln -s busybox /mnt/bin/sh
must cp /second-init.sh /mnt/sbin/init
say "switching"
umount /dev 2>/dev/null
umount /sys
umount /proc
exec /bin/busybox switch_root /mnt /sbin/init
