/* A disk that does not answer, preloaded into the process under test: calls that read, or that change, files below
 * SLOW_READS or SLOW_CHANGES, SLOW_FROM bytes into the file or further, wait for a minute. Signals do not end the wait,
 * as they don't where a disk is waited for. Before the first, SLOW_SEEN is written. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static void wait_for_disk(const char *variable, int fd, off_t place) {
    const char *below = getenv(variable), *from = getenv("SLOW_FROM"), *seen = getenv("SLOW_SEEN");
    char link[64], path[PATH_MAX];
    if (!below || place < (from ? atoll(from) : 0)) return;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0 || strncmp(path, below, strlen(below))) return;
    if (seen) syscall(SYS_close, syscall(SYS_openat, AT_FDCWD, seen, O_WRONLY | O_CREAT, 0600));
    struct timespec left = {60, 0};
    while (nanosleep(&left, &left)) {}
}

static off_t here(int fd) { return syscall(SYS_lseek, fd, 0, SEEK_CUR); }

#define REAL(name) ((__typeof__(name) *)dlsym(RTLD_NEXT, #name))
#define READS(type, name, parameters, arguments, fd, place) \
    type name parameters { wait_for_disk("SLOW_READS", fd, place); return REAL(name) arguments; }
#define CHANGES(type, name, parameters, arguments, fd, place) \
    type name parameters { wait_for_disk("SLOW_CHANGES", fd, place); return REAL(name) arguments; }

READS(ssize_t, read, (int fd, void *to, size_t n), (fd, to, n), fd, here(fd))
READS(ssize_t, pread, (int fd, void *to, size_t n, off_t at), (fd, to, n, at), fd, at)
READS(ssize_t, pread64, (int fd, void *to, size_t n, off64_t at), (fd, to, n, at), fd, at)
READS(ssize_t, preadv, (int fd, const struct iovec *to, int n, off_t at), (fd, to, n, at), fd, at)
READS(ssize_t, preadv64, (int fd, const struct iovec *to, int n, off64_t at), (fd, to, n, at), fd, at)
READS(ssize_t, preadv2, (int fd, const struct iovec *to, int n, off_t at, int f), (fd, to, n, at, f), fd, at)
READS(ssize_t, preadv64v2, (int fd, const struct iovec *to, int n, off64_t at, int f), (fd, to, n, at, f), fd, at)
CHANGES(ssize_t, write, (int fd, const void *from, size_t n), (fd, from, n), fd, here(fd))
CHANGES(ssize_t, pwrite, (int fd, const void *from, size_t n, off_t at), (fd, from, n, at), fd, at)
CHANGES(ssize_t, pwrite64, (int fd, const void *from, size_t n, off64_t at), (fd, from, n, at), fd, at)
CHANGES(ssize_t, copy_file_range, (int from, off64_t *a, int to, off64_t *b, size_t n, unsigned f),
        (from, a, to, b, n, f), to, b ? *b : here(to))
CHANGES(int, fsync, (int fd), (fd), fd, 1L << 62)
CHANGES(int, fdatasync, (int fd), (fd), fd, 1L << 62)
