# The guest's process 1 after guest-root.sh has built its root: loads the drivers, runs the command, reports.
#
# The host listens on three virtio ports: the command's stdout, its stderr, and this script's reports: "ready", which
# the host answers, and "exited STATUS UNKILLABLE". The first two each end with a trailer that the host knows, because
# nothing else tells it that a stream is complete.
set -eux
cd /run/vm
. ./job.sh

busybox mount -t cgroup2 cgroup2 /sys/fs/cgroup
busybox mount -t debugfs debugfs /sys/kernel/debug
busybox mkdir /dev/pts /dev/shm
busybox mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
busybox mount -t tmpfs -o mode=1777 tmpfs /dev/shm
# udev would make these.
busybox ln -s /proc/self/fd /dev/fd
busybox ln -s /proc/self/fd/0 /dev/stdin
busybox ln -s /proc/self/fd/1 /dev/stdout
busybox ln -s /proc/self/fd/2 /dev/stderr
busybox hostname tsbuse
busybox ip link set lo up
ulimit -c 0

# Other modules are loaded on demand, as on any machine: btrfs and xfs take a second each. The parameters are the
# driver's defaults, whatever the host's modprobe.d says.
/sbin/modprobe -a virtio_console virtio_blk loop dm_mod configfs
case $version in
  6.1.*) ;; # Debian's has no ublk.
  *) /sbin/modprobe ublk_drv ;;
esac
/sbin/modprobe nbd nbds_max=16 max_part=16
busybox mount -t configfs configfs /sys/kernel/config

# The ports appear some time after their driver has started.
until [ -e /dev/vport*p3 ]; do busybox sleep 0.02; done
stdout=$(echo /dev/vport*p1)
stderr=$(echo /dev/vport*p2)
exec 3<>"$(echo /dev/vport*p3)"

# A port can be opened only once, so the command could not open it again as /dev/stdout. It writes to pipes instead.
busybox mkfifo -m 666 stdout stderr
busybox cat stdout trailer >"$stdout" &
stdout_relay=$!
busybox cat stderr trailer >"$stderr" &
stderr_relay=$!

# From here on the host counts the command as run, and never runs it twice: wait until it knows.
echo ready >&3
read -r go <&3

# In the foreground: in the background the shell would make the command ignore SIGINT.
set +ex
(payload) </dev/null >stdout 2>stderr 3>&-
status=$?

# Sets $left to the processes that the command left behind. Kernel threads and zombies, which have no program, are not
# counted.
find_left() {
  left=
  for entry in /proc/[0-9]*; do
    case ${entry#/proc/} in 1 | $stdout_relay | $stderr_relay) continue ;; esac
    [ -e "$entry/exe" ] && left="$left ${entry#/proc/}"
  done
}

# A process that is left holds a pipe open, and the relay of that pipe would wait for ever. A process that survives
# SIGKILL hangs in a driver, and the host must get the status nevertheless.
attempts=0
find_left
while [ -n "$left" ] && [ $attempts -lt 50 ]; do
  kill -KILL $left
  busybox sleep 0.1
  attempts=$((attempts + 1))
  find_left
done
[ -n "$left" ] || wait $stdout_relay $stderr_relay

# Writes back pages that the command changed through a mapping. Only this file system: another may never answer.
busybox timeout 10 busybox sync -f "$checkout"

set -- $left
echo "exited $status $#" >&3
# The host switches the machine off when it has read everything.
while :; do busybox sleep 1000; done
