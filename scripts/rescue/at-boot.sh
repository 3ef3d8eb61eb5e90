#!/bin/sh
# Attaches what the kernel's command line asks for, in the initramfs: put here by "tsbuse install-initramfs".
#
#   tsbuse=ramdisk,512M,/dev/ublkb0     is "tsbuse ramdisk 512M /dev/ublkb0 --initrd"; it may be given several times.
#
# A comma in a word is written twice, and a parameter with blanks in double quotes, as for any other. The shell of an
# initramfs may have no commands but its own, so there are none here but mkdir, chmod and sleep.
#
# With "once" every parameter is tried once, for a caller that comes back until $state/done is there. A disk that is to
# be served may take a while to appear.
[ "${1-}" != prereqs ] || exit 0
set -uf

tsbuse=/usr/bin/tsbuse
command_line=/proc/cmdline
state=/run/tsbuse-at-boot
tries_max=30

# Takes one parameter off $line, without its quotes, as the kernel reads it.
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
  # What follows a "--" is the device's own: our options go before.
  "$tsbuse" "$device" --initrd "$@" </dev/null >/dev/null 2>"$state/message"
}

# Tries every parameter that is not done with. Sets $left to how many remain to be tried again.
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
    # A wrong command line stays wrong.
    if [ $status -eq 1 ] && [ $tries -lt $tries_max ]; then
      left=$((left + 1))
      continue
    fi
    : >"$state/$number"
    [ $status -eq 0 ] || report
  done
}

report() {
  echo "tsbuse: \"$parameter\" of the kernel's command line came to nothing:" >&2
  while IFS= read -r text; do echo "$text" >&2; done <"$state/message"
}

mkdir -p "$state"
# dracut strips what can be executed, and a stripped tsbuse has lost its program: it came without the permission.
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
