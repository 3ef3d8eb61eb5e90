#!/bin/sh
# The main job as a user would type it: each command is printed, then run. tsbuse is on the PATH; run as root.
# A test reads the commands here, and compares them with those in docs/demo.svg.
set -eu
# Answers and complaints in their order, as a terminal shows them.
exec 2>&1

type_command() {
  printf '\n$ %s\n' "$*"
}
type_and_run() {
  type_command "$*"
  eval "$*"
}

# The node and a directory that nobody uses.
node=/dev/nbd0
[ ! -e /sys/block/nbd0/pid ] || node=auto
directory=$(mktemp -d)
log=$directory/log
server=
finish() {
  cd /
  ! mountpoint -q "$directory/mnt" || umount "$directory/mnt"
  [ -z "$server" ] || kill "$server" 2>/dev/null || true
  rm -rf "$directory"
}
trap finish EXIT
cd "$directory"

type_and_run "tsbuse --version"
type_command "tsbuse ramdisk 512M $node &"
tsbuse ramdisk 512M "$node" >"$log" &
server=$!
# The path is printed once the device can be used; the server ends early only with an error, which it has printed.
until [ -s "$log" ]; do
  kill -0 "$server"
  sleep 0.1
done
cat "$log"
node=$(cat "$log")

type_and_run "tsbuse list"
type_and_run "mkfs.ext4 -q $node"
type_and_run "mkdir mnt && mount $node mnt"
type_and_run "dd if=/dev/urandom of=mnt/file bs=1M count=64 status=none"
before=$(sha256sum <mnt/file)
type_and_run "sha256sum mnt/file"
type_and_run "umount mnt"
type_and_run "echo 3 > /proc/sys/vm/drop_caches"
type_and_run "mount $node mnt"
after=$(sha256sum <mnt/file)
type_and_run "sha256sum mnt/file"
type_and_run "umount mnt"
type_and_run "fsck.ext4 -fn $node"
# Fails with the status of the server, and the session with it.
type_and_run 'kill -INT $! && wait $!'
server=
type_and_run "tsbuse list"

[ "$before" = "$after" ]
printf '\nThe file came back from the device byte for byte, and the device is gone.\n'
