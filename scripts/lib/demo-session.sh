#!/bin/sh
# The main job as a user would type it: each command is printed, then run. tsbuse is on the PATH; run as root.
set -eu

type_and_run() {
  printf '\n$ %s\n' "$*"
  eval "$*"
}

# The node and a mount point that nobody uses.
node=/dev/nbd0
[ ! -e /sys/block/nbd0/pid ] || node=auto
mnt=$(mktemp -d)
log=$(mktemp)
server=
finish() {
  mountpoint -q "$mnt" && umount "$mnt"
  [ -z "$server" ] || kill "$server" 2>/dev/null || true
  rm -rf "$mnt" "$log"
}
trap finish EXIT

type_and_run tsbuse --version
printf '\n$ tsbuse ramdisk 512M %s &\n' "$node"
tsbuse ramdisk 512M "$node" >"$log" &
server=$!
# The path is printed once the device can be used; the server ends early only with an error, which it has printed.
until [ -s "$log" ]; do
  kill -0 "$server"
  sleep 0.1
done
cat "$log"
node=$(cat "$log")

type_and_run tsbuse list
type_and_run mkfs.ext4 -q "$node"
type_and_run mount "$node" "$mnt"
type_and_run dd if=/dev/urandom of="$mnt/file" bs=1M count=64 status=none
before=$(sha256sum <"$mnt/file")
type_and_run "sha256sum < $mnt/file"
type_and_run umount "$mnt"
type_and_run "echo 3 > /proc/sys/vm/drop_caches"
type_and_run mount "$node" "$mnt"
after=$(sha256sum <"$mnt/file")
type_and_run "sha256sum < $mnt/file"
type_and_run umount "$mnt"
type_and_run fsck.ext4 -fn "$node"

printf '\n^C   (SIGINT to tsbuse)\n'
kill -INT "$server"
status=0
wait "$server" || status=$?
server=
printf 'exit status %s\n' "$status"
type_and_run tsbuse list

[ "$status" = 0 ]
[ "$before" = "$after" ]
printf '\nThe file came back from the device byte for byte, and the device is gone.\n'
