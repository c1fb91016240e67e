// Preloaded into a program (LD_PRELOAD), counts the bytes that it reads of one file, whoever reads
// them: at its end it appends "BYTES\n" to the file that PENSTOCK_READS_LOG names.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static atomic_ullong total;
static struct stat wanted;
static int known;

__attribute__((constructor)) static void begin(void) {
  const char* path = getenv("PENSTOCK_READS_OF");
  known = path != NULL && stat(path, &wanted) == 0;
}

__attribute__((destructor)) static void end(void) {
  const char* path = getenv("PENSTOCK_READS_LOG");
  if (path == NULL || total == 0) return;
  char line[32];
  const int length = snprintf(line, sizeof line, "%llu\n", (unsigned long long)total);
  const int log = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);
  if (write(log, line, (size_t)length) != length) abort();
  close(log);
}

static ssize_t count(int descriptor, ssize_t bytes) {
  struct stat status;
  if (known && bytes > 0 && fstat(descriptor, &status) == 0 && status.st_ino == wanted.st_ino &&
      status.st_dev == wanted.st_dev) {
    total += (unsigned long long)bytes;
  }
  return bytes;
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t read(int descriptor, void* to, size_t size) {
  return count(descriptor, NEXT(read)(descriptor, to, size));
}
ssize_t pread(int descriptor, void* to, size_t size, off_t offset) {
  return count(descriptor, NEXT(pread)(descriptor, to, size, offset));
}
ssize_t pread64(int descriptor, void* to, size_t size, off64_t offset) {
  return count(descriptor, NEXT(pread64)(descriptor, to, size, offset));
}
ssize_t readv(int descriptor, const struct iovec* to, int parts) {
  return count(descriptor, NEXT(readv)(descriptor, to, parts));
}
ssize_t preadv(int descriptor, const struct iovec* to, int parts, off_t offset) {
  return count(descriptor, NEXT(preadv)(descriptor, to, parts, offset));
}
