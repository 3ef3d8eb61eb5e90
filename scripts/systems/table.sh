#!/bin/busybox sh
# The checks for every system that docs/operations.md names: sh table.sh TSBUSE, as root, with busybox and the drivers'
# modules. Prints a line for each, "ok POINT" or "FAIL POINT: WHY"; the exit status is 1 if one failed.
tsbuse=$1
work=$(busybox mktemp -d)
cd "$work" || exit 1
failures=0
server=

point() {
  name=$1
  shift
  why=$("$@" 2>&1) && echo "ok   $name" && return
  failures=$((failures + 1))
  echo "FAIL $name: $(echo "$why" | busybox tail -n 5 | busybox tr '\n' ' ')"
}

# until SECONDS COMMAND...: waits for it to succeed.
until_true() {
  left=$(($1 * 10))
  shift
  while ! "$@"; do
    left=$((left - 1))
    [ "$left" -gt 0 ] || { echo "still fails after the wait: $*"; return 1; }
    busybox sleep 0.1
  done
}

# serve ARGUMENTS...: starts a server. Sets $server to its process ID and $node to what it serves.
serve() {
  : >printed
  "$tsbuse" "$@" >printed 2>errors &
  server=$!
  until_true 90 served || { busybox cat errors; return 1; }
  node=$(busybox cat printed)
}
served() { [ -s printed ] || ! kill -0 "$server" 2>/dev/null; }

stop() {
  kill -TERM "$server"
  wait "$server" || { echo "the server ended with $?"; busybox cat errors; return 1; }
}

# Makes a file system and a file on it, mounts it once more and compares the bytes.
use() {
  busybox mke2fs -F "$1" >/dev/null 2>&1 || { echo "mke2fs $1 failed"; return 1; }
  busybox mkdir -p mnt
  busybox mount -t ext4 "$1" mnt || return 1
  busybox dd if=/dev/urandom of=data bs=64k count=64 2>/dev/null
  busybox cp data mnt/data && busybox umount mnt || return 1
  echo 3 >/proc/sys/vm/drop_caches
  busybox mount -t ext4 "$1" mnt && busybox cmp data mnt/data && busybox umount mnt
}

main_job() { serve ramdisk 32M "$1" && [ -b "$node" ] && use "$node" && stop; }

own_device() {
  busybox cat >own.ts <<'END'
    export default {
      size: 65536,
      read(target: Uint8Array, offset: number) {
        for (let at = 0; at < target.length; at += 512) target.fill((offset + at) / 512, at, at + 512);
      },
    };
END
  # All bytes of the third block are 2.
  "$tsbuse" run ./own.ts "$1" --run 'busybox dd if=$TSBUSE_DEVICE of=block bs=512 skip=2 count=1' || return 1
  [ "$(busybox tr -d '\2' <block | busybox wc -c) $(busybox wc -c <block)" = "0 512" ]
}

remote() {
  serve ramdisk 32M "unix:$work/sock" && far=$server && serve nbd "nbd+unix:///?socket=$work/sock" "$1" &&
    use "$node" && stop && server=$far && stop
}

recovered() {
  busybox dd if=/dev/zero of=image bs=1M count=0 seek=32 2>/dev/null
  serve loop image "$1" --recover && busybox mke2fs -F "$node" >/dev/null 2>&1 || return 1
  busybox mount -t ext4 "$node" mnt && busybox cp data mnt/one || return 1
  kill -KILL "$server"
  wait "$server"
  first=$node
  serve loop image "$first" --recover && [ "$node" = "$first" ] || return 1
  busybox cp data mnt/two && busybox sync && busybox cmp mnt/one mnt/two && busybox umount mnt && stop
}

killed() {
  serve ramdisk 32M "$1" || return 1
  kill -KILL "$server"
  wait "$server"
  # Without --recover nothing waits for a new server: a read ends without data, and the node can be attached again.
  busybox timeout 60 busybox dd if="$node" of=rest bs=4096 count=1 iflag=direct 2>/dev/null
  [ $? -ne 143 ] && [ ! -s rest ] && main_job "$1"
}

# refused STATUS ARGUMENTS...: tsbuse must end with STATUS and print one line.
refused() {
  expected=$1
  shift
  busybox timeout 60 "$tsbuse" "$@" >said 2>&1
  status=$?
  [ "$status $(busybox wc -l <said)" = "$expected 1" ] || { echo "exit status $status"; busybox cat said; return 1; }
}

busybox mkdir -p mnt
echo "on Linux $(busybox uname -r), $(busybox uname -m): $("$tsbuse" --version --verbose | busybox tr '\n' ' ')"
drivers=nbd
if [ -e /dev/ublk-control ]; then drivers="nbd ublk"; else point "no ublk: refused" refused 1 ramdisk 4M ublk; fi
for driver in $drivers; do
  point "$driver: file system on a RAM disk" main_job "$driver"
  point "$driver: device of one's own" own_device "$driver"
  point "$driver: what a server on a Unix socket exports" remote "$driver"
  point "$driver: killed and recovered under a mounted file system" recovered "$driver"
  point "$driver: killed, and attached anew" killed "$driver"
  point "$driver: a file that is missing is refused" refused 1 loop /none/image "$driver"
done
point "doctor finds nothing that is missing" "$tsbuse" doctor
busybox rm -rf "$work"
[ "$failures" = 0 ] && echo "all done"
