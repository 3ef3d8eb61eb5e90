#!/bin/sh
# The first process of a system whose initramfs, a distribution's own, has attached its root and a RAM disk.
say() { echo "tsbuse-boot: $*"; }
fail() {
  say "FAILED: $*"
  dmesg | tail -n 40
  /bin/busybox poweroff -f
}
must() { "$@" || fail "$* ended with $?"; }

exec </dev/null >/dev/console 2>&1
/bin/busybox mountpoint -q /proc || /bin/busybox mount -t proc proc /proc
mountpoint -q /sys || mount -t sysfs sysfs /sys
mountpoint -q /dev || mount -t devtmpfs devtmpfs /dev
dmesg -n 1
say begin
read -r command_line </proc/cmdline
ram_disk=${command_line##*tsbuse_ram=}
ram_disk=${ram_disk%% *}
root=$(sed -n 's/^\([^ ]*\) \/ .*/\1/p' /proc/mounts | tail -n 1)
for node in "$root" "$ram_disk"; do
  say "$node $(cat "/sys/block/${node##*/}/size")"
done
# Those that systemd's switch of the root has spared.
say "servers $(cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\0' '\n' | grep -c '^@tsbuse$')"

must mount -o remount,rw /
must mke2fs "$ram_disk" >/dev/null 2>&1
must mount "$ram_disk" /mnt
for directory in / /mnt; do
  must dd if=/dev/urandom of="$directory/file" bs=64k count=128 2>/dev/null
  before=$(sha256sum <"$directory/file")
  sync
  echo 3 >/proc/sys/vm/drop_caches
  [ "$before" = "$(sha256sum <"$directory/file")" ] || fail "what was read is not what was written"
  say "$directory read back"
done
must umount /mnt
must mount -o remount,ro /
token=${command_line##*tsbuse_boot=}
say "end ${token%% *}"
poweroff -f
