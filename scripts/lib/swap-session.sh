# Swaps to a disk that tsbuse serves, in a guest with little memory and two disks: /dev/vda for swap, and /dev/vdb
# for a watchdog that writes and syncs beside it. Exits with 0 if all data came back and nothing failed.
#
#   NODE      /dev/ublkb0 or /dev/nbd0
#   SECONDS   how long writers dirty memory
set -eu
node=$1
seconds=$2
memory_mib=$(($(awk '/^MemTotal/ { print $2 }' /proc/meminfo) / 1024))
# Together they hold one and a half times the memory, and dirty all of it again in each round.
writers=3
each_mib=$((memory_mib / 2))

mkfs.ext4 -q -F /dev/vdb
mkdir /mnt/b
mount /dev/vdb /mnt/b

dist/tsbuse loop /dev/vda "$node" --direct --swap --daemon --pid-file /run/swap.pid
server=$(cat /run/swap.pid)
mkswap "$node" >/dev/null
swapon "$node"

# Records how long the watchdog's slowest write took, in milliseconds, by a clock that never stops.
watch() {
  slowest=0
  while [ ! -e /run/enough ]; do
    before=$(cut -d' ' -f1 /proc/uptime | tr -d .)
    dd if=/dev/zero of=/mnt/b/watched bs=4k count=1 conv=fsync status=none
    took=$((($(cut -d' ' -f1 /proc/uptime | tr -d .) - before) * 10))
    [ $took -le $slowest ] || slowest=$took
    echo $slowest >/run/slowest
    busybox sleep 0.2
  done
}

writer="node_modules/.bin/bun scripts/lib/swap-writer.ts"
watch &
index=0
while [ $index -lt $writers ]; do
  { $writer $index $each_mib /run/enough >>/run/rounds || echo $index >>/run/wrong; } &
  index=$((index + 1))
done
busybox sleep "$seconds"
: >/run/enough
wait

of_vmstat() { awk -v name="$1" '$1 == name { print int($2 / 256) }' /proc/vmstat; }
echo "$node: $seconds s, $writers writers of $each_mib MiB in $memory_mib MiB," \
  "$(of_vmstat pswpout) MiB swapped out and $(of_vmstat pswpin) MiB in," \
  "server $(awk '/^VmRSS/ { print int($2 / 1024) }' /proc/$server/status) MiB," \
  "slowest write and fsync beside it $(cat /run/slowest) ms"
failed=0
if [ -e /run/wrong ] || [ "$(wc -l </run/rounds)" != $writers ]; then
  echo "a writer has ended early, or has read back other data than it wrote"
  failed=1
fi
if dmesg | grep -Ei 'I/O error|out of memory|blocked for more|read-error'; then failed=1; fi
swapoff "$node"
kill "$server"
while [ -e /run/swap.pid ]; do busybox sleep 0.1; done
umount /mnt/b
exit $failed
