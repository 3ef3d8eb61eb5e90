#!/bin/busybox sh
# The guest's first process: builds the root and hands over to guest-init.sh.
#
# The guest's first root is the host's own file system, or has that at $host. Commands that run as root in the guest
# must not change the host, so the final root is an overlay: the host's files below, and on top a tmpfs that takes every
# change and goes with the guest. Only the directories that the job shares are the host's own, and writable.
#
# If a command fails, this process ends, the kernel panics, and its console tells the host which command it was.
set -eux

# By its path: this shell runs its own commands as /proc/self/exe, which is still the host's virtiofsd.
/bin/busybox mount -t proc proc /proc
# A container's /dev/console would not be ours.
busybox mount -t devtmpfs devtmpfs /dev
exec </dev/null >/dev/console 2>&1

job=${0%/*}
. "$job/job.sh"

busybox insmod "$host$modules/$version/kernel/fs/overlayfs/overlay.ko"
busybox mount -t tmpfs tmpfs /mnt
busybox mkdir /mnt/upper /mnt/work /mnt/root
busybox mount -t overlay overlay -o "lowerdir=$host$root,upperdir=/mnt/upper,workdir=/mnt/work" /mnt/root
cd /mnt/root

busybox mkdir -p dev proc sys run tmp mnt lib/modules
busybox mount -t proc proc proc
busybox mount -t sysfs sysfs sys
busybox mount -t devtmpfs devtmpfs dev
for name in run tmp mnt; do
  busybox mount -t tmpfs -o mode=1777 tmpfs "$name"
done
busybox mkdir run/vm run/home
busybox cp "$job"/* run/vm

# At the usual place, so that modprobe finds every module, also when the kernel calls it.
busybox mount --bind "$host$modules" lib/modules
busybox mount -o remount,bind,ro none lib/modules

share() {
  busybox mkdir -p ".$1"
  busybox mount --bind "$host$1" ".$1"
}
share_directories

# As switch_root does; that command itself requires a RAM disk to leave. The environment is a fresh one, because the
# kernel puts words of its command line into this one.
busybox mount --move . /
exec busybox chroot . /bin/busybox env -i \
  PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
  HOME=/run/home USER=root LOGNAME=root SHELL=/bin/sh LANG=C.UTF-8 TSBUSE_VM=1 \
  /bin/busybox sh /run/vm/guest-init.sh
