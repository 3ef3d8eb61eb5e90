#!/bin/sh
# Checks a binary without a kernel of its own: sh socket.sh COMMAND... runs tsbuse by COMMAND, which may be an emulator.
# Needs libnbd's nbdcopy. Prints a line for each check, as table.sh does.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
failures=0

point() {
  name=$1
  shift
  if "$@" >said 2>&1; then echo "ok   $name"; else
    failures=$((failures + 1))
    echo "FAIL $name: $(tail -n 5 said | tr '\n' ' ')"
  fi
}

# serve DEVICE...: on the socket "sock".
serve() {
  rm -f sock printed
  "$tsbuse" "$@" unix:sock >printed 2>errors &
  server=$!
  left=600
  while [ ! -s printed ] && [ "$left" -gt 0 ] && kill -0 "$server"; do
    left=$((left - 1))
    sleep 0.1
  done
  [ -s printed ] || { cat errors; return 1; }
}
stop() { kill -TERM "$server" && wait "$server"; }

copied() {
  head -c 8M /dev/urandom >data
  "$@" && nbdcopy data 'nbd+unix:///?socket=sock' && nbdcopy 'nbd+unix:///?socket=sock' back && stop && cmp data back
}
ramdisk() { serve ramdisk 8M; }
loop() { truncate -s 8M image && serve loop image; }
own() {
  cat >own.ts <<'END'
    const bytes = new Uint8Array(8 * 2 ** 20);
    export default {
      size: bytes.length,
      async read(target: Uint8Array, offset: number) {
        target.set(bytes.subarray(offset, offset + target.length));
      },
      write(source: Uint8Array, offset: number) {
        bytes.set(source, offset);
      },
    };
END
  serve run ./own.ts
}
refused() {
  "$tsbuse" loop /none/image unix:sock
  [ $? = 1 ]
}

printf '#!/bin/sh\nexec %s "$@"\n' "$*" >tsbuse
chmod +x tsbuse
tsbuse=$work/tsbuse
echo "by $*: $("$tsbuse" --version --verbose | tr '\n' ' ')"
point "a RAM disk on a Unix socket" copied ramdisk
point "a file on a Unix socket" copied loop
point "a device of one's own on a Unix socket" copied own
point "a file that is missing is refused" refused
[ "$failures" = 0 ] && echo "all done"
