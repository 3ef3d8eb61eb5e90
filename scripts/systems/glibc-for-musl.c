/*
 * What Debian's libstdc++ and libgcc need from glibc and musl lacks: Debian has no libstdc++ for musl. On x86-64 it
 * takes the place of glibc's loader, which they name as a library. Only for testing that the binary for musl runs.
 */
#include <locale.h>
#include <stdlib.h>
#include <sys/auxv.h>
#include <sys/random.h>
#include <time.h>

char __libc_single_threaded;

size_t __strftime_l(char *target, size_t size, const char *format, const struct tm *time, locale_t locale) {
  return strftime_l(target, size, format, time, locale);
}

unsigned arc4random(void) {
  unsigned value;
  if (getrandom(&value, sizeof value, 0) != sizeof value) abort();
  return value;
}

unsigned long __getauxval(unsigned long type) {
  return getauxval(type);
}

/* Always "not found". */
int _dl_find_object(void *address, void *result) {
  return -1;
}

/* On x86-64: no known features of the processor. */
struct {
  unsigned vendor, type, subtype, features;
} __cpu_model;

int __cpu_indicator_init(void) {
  return 0;
}

/* Does not run the destructors of thread-local objects. */
int __cxa_thread_atexit_impl(void (*destroy)(void *), void *object, void *library) {
  return 0;
}
