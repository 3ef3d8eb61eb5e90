#!/bin/sh
# Puts tsbuse and its drivers into the images that initramfs-tools makes: put here by "tsbuse install-initramfs".
[ "${1-}" != prereqs ] || exit 0
set -eu
. /usr/share/initramfs-tools/hook-functions

program=$(PATH=$PATH:/usr/sbin:/usr/local/sbin:/usr/local/bin command -v tsbuse) || {
  echo "W: tsbuse: no program tsbuse on the PATH: building the image without it" >&2
  exit 0
}
copy_exec "$program" /usr/bin/tsbuse
manual_add_modules nbd ublk_drv
