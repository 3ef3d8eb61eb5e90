/*
 * What Debian's libstdc++ and libgcc take of glibc that musl lacks: Debian has no libstdc++ for musl. It takes the place
 * of glibc's loader, which they ask for by its name on x86-64. Not for use, but to see whether the binary for musl runs.
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

/* Not found. */
int _dl_find_object(void *address, void *result) {
  return -1;
}

/* Of x86-64: nothing is known of the processor. */
struct {
  unsigned vendor, type, subtype, features;
} __cpu_model;

int __cpu_indicator_init(void) {
  return 0;
}

/* What a thread leaves is not taken apart at its end. */
int __cxa_thread_atexit_impl(void (*destroy)(void *), void *object, void *library) {
  return 0;
}
