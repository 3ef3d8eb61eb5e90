#!/bin/sh
# A service of a system that is run by systemd: what its user does, at the first boot and at the next one.
say() { printf 'tsbuse-boot: %s\n' "$*"; }
fail() {
  say "FAILED: $*"
  journalctl --no-pager -n 60 -o cat
  dmesg | tail -n 20
  echo o >/proc/sysrq-trigger
  sleep 60
}
must() { "$@" || fail "$* ended with $?"; }
# until WHAT COMMAND...: looked at often, for a minute.
until_so() {
  what=$1
  shift
  tries=0
  until "$@" >/dev/null 2>&1; do
    tries=$((tries + 1))
    [ $tries -lt 600 ] || fail "not within a minute: $what"
    sleep 0.1
  done
}
# The line of a command that is refused, to the colon.
refused() {
  if said=$(tsbuse "$@" 2>&1); then fail "not refused: $*"; fi
  said=${said#tsbuse: }
  echo "${said%%: *}"
}

NAME='my disk'
UNIT='tsbuse-my\x20disk.service'
UUID=7e57ab1e-0000-4000-8000-000000000001
FILE='/srv/a disk.img'

pid() { systemctl show --property MainPID --value "$UNIT"; }
rounds() { cat /run/rounds; }
written_to() { [ "$(rounds)" -gt $((round + 1)) ]; }
# Two files are written after what has happened has happened, and read back.
goes_on() {
  round=$(rounds)
  until_so "written to: $1" written_to
  [ ! -e /run/wrong ] || fail "$1: $(cat /run/wrong)"
  say "$1: served by $2 process, and written to"
}
another_serves() {
  now=$(pid)
  [ "$now" != 0 ] && [ "$now" != "$server" ] && systemctl is-active --quiet "$UNIT"
}
# What a user of the file system does, over and over.
write_rounds() {
  count=0
  while [ ! -e /run/enough ]; do
    file=/data/file.$((count % 8))
    head -c 262144 /dev/urandom >/run/data && cp /run/data $file && sync -f $file &&
      echo 1 >/proc/sys/vm/drop_caches && cmp /run/data $file || echo "round $count: $?" >/run/wrong
    count=$((count + 1))
    echo $count >/run/rounds.new && mv /run/rounds.new /run/rounds
  done 2>>/run/wrong.log
  echo >/run/done
}

# A second disk, whose only partition is mounted: no unit says that its server is needed for that.
partition() {
  truncate -s 64M /srv/parts.img
  printf '\0\0\0\0\203\0\0\0\0\010\0\0\0\360\001\0' | dd of=/srv/parts.img bs=1 seek=446 conv=notrunc
  printf '\125\252' | dd of=/srv/parts.img bs=1 seek=510 conv=notrunc
  tsbuse install-service parts -- loop parts.img /dev/ublkb1 --recover
  must systemctl start tsbuse-parts
  must mkfs.ext4 -q /dev/ublkb1p1
  mkdir -p /parts
  echo "/dev/ublkb1p1 /parts ext4 defaults 0 2" >>/etc/fstab
}

first_boot() {
  cd /root || fail "no /root"
  must sha256sum --quiet --check --ignore-missing SHA256SUMS
  must install -m 755 tsbuse-linux-x64 /usr/local/bin/tsbuse
  truncate -s 64M "$FILE"
  touch /etc/systemd/system/tsbuse-taken.service
  say "somebody else's unit: $(refused install-service taken -- ramdisk 1M /dev/ublkb1)"
  rm /etc/systemd/system/tsbuse-taken.service
  say "no such service: $(refused install-service none --remove)"
  cd /srv || fail "no /srv"
  say "next: $(tsbuse install-service "$NAME" -- loop 'a disk.img' /dev/ublkb0 --recover)"
  must systemctl start "$UNIT"
  must mkfs.ext4 -q -U $UUID /dev/ublkb0
  partition >/dev/null 2>&1
  mkdir /data
  echo "UUID=$UUID /data ext4 defaults 0 2" >>/etc/fstab
  systemctl daemon-reload
  until_so "the link by UUID" test -b /dev/disk/by-uuid/$UUID
  must mount /data
  must systemctl start parts.mount
  must mountpoint -q /data
  must mountpoint -q /parts
  say "mounted by its UUID"
  echo 0 >/run/rounds
  write_rounds &

  server=$(pid)
  kill -9 "$server"
  until_so "started anew" another_serves
  goes_on killed another
  server=$(pid)
  must systemctl restart "$UNIT"
  another_serves || fail "not restarted"
  goes_on restarted another
  server=$(pid)
  # That process is begun by another service, as by any user, and goes on when that has ended.
  must tsbuse handover /dev/ublkb0 loop 'a disk.img' --daemon >/dev/null
  another_serves || fail "the main process is not the one that has taken over"
  grep -q tsbuse-my "/proc/$(pid)/cgroup" || fail "it is in $(cat "/proc/$(pid)/cgroup")"
  goes_on "handed over" another
  server=$(pid)
  kill -9 "$server"
  until_so "started anew after a handover" another_serves
  goes_on "killed after that" another
  server=$(pid)
  must systemctl daemon-reexec
  [ "$(pid)" = "$server" ] || fail "systemd has lost the server"
  goes_on "systemd begun anew" "the same"
  say "removed while it is mounted: $(refused install-service "$NAME" --remove)"
  must systemctl stop "$UNIT"
  tsbuse list --json | grep -q '"waiting": true' || fail "it does not wait"
  say "stopped: it waits"
  must systemctl start "$UNIT"
  goes_on started another
  touch /run/enough
  until_so "the end of the writer" test -e /run/done
  [ ! -s /run/wrong.log ] || fail "$(cat /run/wrong.log)"
  ! dmesg | grep -q 'I/O error\|EXT4-fs error' || fail "the kernel saw errors"
  say "what was written was read back"
  # It takes a while to unmount that.
  head -c 48M /dev/urandom >/parts/file
  sha256sum /data/file.* /parts/file >/root/sums
  must systemctl --no-block reboot
}

next_boot() {
  until_so "mounted" mountpoint -q /data
  until_so "the partition is mounted" mountpoint -q /parts
  must systemctl is-active --quiet "$UNIT" tsbuse-parts
  say "booted again: served and mounted"
  ! dmesg | grep -q 'recovery complete\|recovering journal' || fail "the file system was not unmounted"
  say "the file systems were clean"
  journalctl --no-pager -b -1 -o cat -u data.mount -u "$UNIT" >/root/last
  unmounted=$(grep -n '^Unmounted' /root/last | tail -n 1 | cut -d: -f1)
  stopped=$(grep -n '^Stopped' /root/last | tail -n 1 | cut -d: -f1)
  [ "${unmounted:-0}" -gt 0 ] && [ "$unmounted" -lt "${stopped:-0}" ] || fail "the order was: $(tail -n 9 /root/last)"
  tail -n 3 /root/last | grep -q 'Deactivated successfully' || fail "the end was: $(tail -n 9 /root/last)"
  say "unmounted before the service was stopped, which ended well"
  must sha256sum --quiet --check /root/sums
  say "what was written before is there"
  must systemctl stop data.mount parts.mount
  must systemctl stop "$UNIT" tsbuse-parts
  [ ! -e /dev/ublkc0 ] && [ ! -e /dev/ublkc1 ] || fail "the nodes are there"
  say "stopped: the nodes are gone"
  must systemctl start "$UNIT"
  must tsbuse install-service "$NAME" --remove 2>/dev/null
  must tsbuse install-service parts --remove 2>/dev/null
  for path in /dev/ublkc0 /etc/udev/rules.d/61-tsbuse.rules "/etc/systemd/system/$UNIT"; do
    [ ! -e "$path" ] || fail "$path is there"
  done
  say removed
  token=$(sed 's/.*tsbuse_boot=\([^ ]*\).*/\1/' /proc/cmdline)
  say "end $token"
  sync
  echo o >/proc/sysrq-trigger
  sleep 60
}

if [ -e /root/sums ]; then
  next_boot
else
  say begin
  first_boot
fi
