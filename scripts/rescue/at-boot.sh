#!/bin/sh
# Attaches what the kernel's command line asks for, in the initramfs: put here by "tsbuse install-initramfs".
#
#   tsbuse=ramdisk,512M,/dev/ublkb0     is "tsbuse ramdisk 512M /dev/ublkb0 --initrd"; it may be given several times.
#
# Write a comma in a word twice, and put a parameter with blanks in double quotes, as any other. The shell of an
# initramfs may have no commands but its own, so this script uses none but mkdir, chmod and sleep.
#
# With "once" it tries every parameter once, for a caller that comes back until $state/done exists. The disk to serve
# may take a while to appear.
[ "${1-}" != prereqs ] || exit 0
set -uf

tsbuse=/usr/bin/tsbuse
command_line=/proc/cmdline
state=/run/tsbuse-at-boot
tries_max=30

# Takes one parameter off $line, without its quotes, as the kernel parses it.
next_parameter() {
  parameter=
  while :; do
    plain=${line%%[\ \"]*}
    parameter=$parameter$plain
    line=${line#"$plain"}
    case $line in
      \"*) ;;
      *) break ;;
    esac
    line=${line#\"}
    quoted=${line%%\"*}
    parameter=$parameter$quoted
    line=${line#"$quoted"}
    line=${line#\"}
  done
  line=${line# }
}

# Runs tsbuse with the words of $1.
attach() {
  rest=$1,
  word=
  set --
  while [ -n "$rest" ]; do
    word=$word${rest%%,*}
    rest=${rest#*,}
    case $rest in
      ,?*)
        word=$word,
        rest=${rest#,}
        ;;
      *)
        set -- "$@" "$word"
        word=
        ;;
    esac
  done
  device=$1
  shift
  # Everything after a "--" belongs to the device, so our options go before it.
  "$tsbuse" "$device" --initrd "$@" </dev/null >/dev/null 2>"$state/message"
}

# Tries every parameter that is not done. Sets $left to the number of those to try again.
attach_all() {
  IFS= read -r line <"$command_line" || [ -n "$line" ] || return 0
  number=0
  left=0
  while [ -n "$line" ]; do
    next_parameter
    case $parameter in
      --) break ;;
      tsbuse=?*) number=$((number + 1)) ;;
      *) continue ;;
    esac
    [ ! -e "$state/$number" ] || continue
    attach "${parameter#tsbuse=}"
    status=$?
    # Only status 1 may pass with time: a wrong command line stays wrong.
    if [ $status -eq 1 ] && [ $tries -lt $tries_max ]; then
      left=$((left + 1))
      continue
    fi
    : >"$state/$number"
    [ $status -eq 0 ] || report
  done
}

report() {
  echo "tsbuse: \"$parameter\" on the kernel's command line failed:" >&2
  while IFS= read -r text; do echo "$text" >&2; done <"$state/message"
}

mkdir -p "$state"
# dracut strips executables, and stripping tsbuse destroys it, so it arrives without the execute permission.
[ -x "$tsbuse" ] || chmod 755 "$tsbuse"

tries=0
[ ! -e "$state/tries" ] || read -r tries <"$state/tries"
while [ ! -e "$state/done" ]; do
  tries=$((tries + 1))
  echo "$tries" >"$state/tries"
  left=0
  attach_all
  [ "$left" -gt 0 ] || : >"$state/done"
  [ "${1-}" != once ] || break
  [ "$left" -eq 0 ] || sleep 1
done
exit 0
