#!/bin/bash
# Puts tsbuse and its drivers into the images that dracut makes: put here by "tsbuse install-initramfs".

tsbuse_program() {
  PATH=$PATH:/usr/local/sbin:/usr/local/bin command -v tsbuse
}

check() {
  tsbuse_program >/dev/null && return 0
  derror "tsbuse: there is no program tsbuse on the PATH: the image is made without it"
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
  # With its libraries, now: at the end dracut looks for those of what can be executed, and this cannot be, since it
  # would be stripped, too, and a stripped tsbuse has lost its program. at-boot.sh gives the permission back.
  DRACUT_RESOLVE_DEPS=1 inst "$(tsbuse_program)" /usr/bin/tsbuse
  chmod a-x "$initdir/usr/bin/tsbuse"
  inst_script "$moddir/at-boot.sh" /usr/lib/tsbuse/at-boot.sh
  inst_hook initqueue/settled 50 "$moddir/settled.sh"
  inst_hook initqueue/finished 50 "$moddir/finished.sh"
  dracut_need_initqueue
}
