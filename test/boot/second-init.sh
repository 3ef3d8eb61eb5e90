#!/bin/sh
# The first process of the system whose root is a device of tsbuse, which was started before this root was there.
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
mount -t devtmpfs devtmpfs /dev
say "root $(sed -n 's/^\([^ ]*\) \/ .*/\1/p' /proc/mounts | tail -n 1)"

# As a shutdown does it: everybody but those whose name says that they serve the root.
server=$(cat /sys/block/nbd0/pid)
for directory in /proc/[0-9]*; do
  pid=${directory#/proc/}
  name=$(tr '\0' ' ' 2>/dev/null <"$directory/cmdline")
  case $name in
    "" | @*) continue ;;
  esac
  [ "$pid" = 1 ] || [ "$pid" = $$ ] || kill -KILL "$pid" 2>/dev/null
done
must [ -e "/proc/$server" ]
say "server spared"
say "held $(ls -l "/proc/$server/fd" "/proc/$server/cwd" | sed -n 's/.* -> \([^:]*\).*/\1/p' | sed 's/ (deleted)$//' | sort -u | tr '\n' ' ')"

must dd if=/dev/urandom of=/file bs=64k count=256 2>/dev/null
before=$(sha256sum </file)
sync
echo 3 >/proc/sys/vm/drop_caches
[ "$before" = "$(sha256sum </file)" ] || fail "what was read is not what was written"
say "read back"
must mount -o remount,ro /
read -r command_line </proc/cmdline
token=${command_line##*tsbuse_boot=}
say "end ${token%% *}"
poweroff -f
