#!/bin/bash
# Puts tsbuse and its drivers into the images that dracut makes: put here by "tsbuse install-initramfs".

tsbuse_program() {
  PATH=$PATH:/usr/local/sbin:/usr/local/bin command -v tsbuse
}

check() {
  tsbuse_program >/dev/null && return 0
  derror "tsbuse: no program tsbuse on the PATH: building the image without it"
  return 1
}

depends() {
  return 0
}

installkernel() {
  hostonly='' instmods nbd ublk_drv
}

install() {
  inst_multiple mkdir chmod sleep
  # Resolves its libraries now. At the end dracut does that for executables only, and tsbuse is installed without the
  # execute permission: dracut strips executables, which would destroy it. at-boot.sh restores the permission.
  DRACUT_RESOLVE_DEPS=1 inst "$(tsbuse_program)" /usr/bin/tsbuse
  chmod a-x "$initdir/usr/bin/tsbuse"
  inst_script "$moddir/at-boot.sh" /usr/lib/tsbuse/at-boot.sh
  inst_hook initqueue/settled 50 "$moddir/settled.sh"
  inst_hook initqueue/finished 50 "$moddir/finished.sh"
  dracut_need_initqueue
}
