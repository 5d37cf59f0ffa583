/* Faults at the boundary between a process and its files, preloaded into the process under test.
 *
 * Calls that change files below one path, and calls that read files below another, are counted apart. At the n-th of
 * either kind the process is killed, sent a signal, the call fails, the disk is filled, or the file that is read is
 * changed. Apart from that, one kind of call may be missing altogether, as on file systems that leave it out.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { COUNT, KILL, FAIL, FILL, SHRINK, CHANGE, SIGNAL };
enum { MAX_CALLS = 4096 };

static struct shared {
    atomic_long changes, reads;
    char names[MAX_CALLS][16];
} *shared;

static char target[PATH_MAX], source[PATH_MAX], filler[PATH_MAX];
static long nth;
static int on_reads, mode, failure;
static int armed;
static char missing[32];
static int missing_error;

void fault_prepare(void) {
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}

/* Counts from now on. With `reads` the fault comes at the n-th read below `from`, else at the n-th change below `to`.
 * `error` is the number of the signal, where one is sent. */
void fault_arm(const char *to, const char *from, int reads, long n, int what, int error) {
    snprintf(target, sizeof target, "%s", to);
    snprintf(source, sizeof source, "%s", from);
    snprintf(filler, sizeof filler, "%.4000s/filler", to);
    nth = n, mode = what, failure = error, on_reads = reads;
    memset(shared, 0, sizeof *shared);
    armed = 1;
}

/* From now on every call of this name fails with this error; with 0, it does nothing and returns 0. A sync of a
 * directory is called "fsync of a directory". */
void fault_lack(const char *name, int error) {
    snprintf(missing, sizeof missing, "%s", name);
    missing_error = error;
}

long fault_changes(void) { return atomic_load(&shared->changes); }
long fault_reads(void) { return atomic_load(&shared->reads); }
const char *fault_name(long n) { return n >= 1 && n <= MAX_CALLS ? shared->names[n - 1] : ""; }

static int below(const char *path, const char *root) {
    size_t length = strlen(root);
    return length && !strncmp(path, root, length) && (path[length] == '/' || !path[length]);
}

static const char *path_of(int fd, char *buffer) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, buffer, PATH_MAX - 1);
    buffer[length > 0 ? length : 0] = 0;
    return buffer;
}

static void fill(void) {
    static char block[1 << 16];
    long fd = syscall(SYS_openat, AT_FDCWD, filler, O_WRONLY | O_CREAT, 0600);
    for (size_t size = sizeof block; size; size /= 2)
        while (syscall(SYS_write, fd, block, size) > 0) {}
    syscall(SYS_close, fd);
}

static void spoil(const char *path) {
    struct stat found;
    if (mode == SHRINK && !stat(path, &found)) syscall(SYS_truncate, path, found.st_size / 2);
    if (mode == CHANGE) {
        long fd = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY);
        syscall(SYS_pwrite64, fd, "!", 1L, 0L);
        syscall(SYS_close, fd);
    }
}

/* Whether the call must fail; errno is set then. */
static int fault(int reads, const char *path, const char *name) {
    if (!armed || !below(path, reads ? source : target)) return 0;
    long n = atomic_fetch_add(reads ? &shared->reads : &shared->changes, 1) + 1;
    if (!reads && n <= MAX_CALLS) snprintf(shared->names[n - 1], sizeof shared->names[0], "%s", name);
    if (reads != on_reads || n != nth) return 0;
    if (mode == KILL) syscall(SYS_kill, getpid(), SIGKILL);
    if (mode == SIGNAL) syscall(SYS_kill, getpid(), failure);
    if (mode == FILL) fill();
    if (mode == SHRINK || mode == CHANGE) spoil(path);
    if (mode != FAIL) return 0;
    errno = failure;
    return 1;
}

static int lacks(const char *name, int fd) {
    struct stat found;
    if (!armed || !missing[0]) return 0;
    if (!strcmp(name, "fsync") && !fstat(fd, &found) && S_ISDIR(found.st_mode)) name = "fsync of a directory";
    if (strcmp(name, missing)) return 0;
    char buffer[PATH_MAX];
    if (!strcmp(name, "write") && !below(path_of(fd, buffer), target)) return 0;
    if (missing_error) errno = missing_error;
    return 1;
}

#define LACKING (missing_error ? -1 : 0)
#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define ON_FD(type, name, parameters, arguments, reads)                                                               \
    type name parameters {                                                                                             \
        static __typeof__(&name) real;                                                                                 \
        if (!real) real = REAL(name);                                                                                  \
        char buffer[PATH_MAX];                                                                                         \
        if (lacks(#name, fd)) return LACKING;                                                                          \
        if (armed && fault(reads, path_of(fd, buffer), #name)) return -1;                                              \
        return real arguments;                                                                                         \
    }
#define ON_PATH(name, parameters, arguments)                                                                          \
    int name parameters {                                                                                              \
        static __typeof__(&name) real;                                                                                 \
        if (!real) real = REAL(name);                                                                                  \
        if (lacks(#name, -1)) return LACKING;                                                                          \
        if (armed && fault(0, path, #name)) return -1;                                                                 \
        return real arguments;                                                                                         \
    }
/* The last argument of a call that may make a file. */
#define TAKE_PERMISSIONS                                                                                               \
    va_list rest;                                                                                                      \
    va_start(rest, flags);                                                                                             \
    int permissions = flags & O_CREAT ? va_arg(rest, int) : 0;                                                         \
    va_end(rest);

#define OPEN(name)                                                                                                     \
    int name(const char *path, int flags, ...) {                                                                       \
        static __typeof__(&name) real;                                                                                 \
        if (!real) real = REAL(name);                                                                                  \
        TAKE_PERMISSIONS                                                                                               \
        if ((flags & O_TMPFILE) == O_TMPFILE && lacks("O_TMPFILE", -1)) return -1;                                     \
        if (armed && flags & O_CREAT && fault(0, path, "open")) return -1;                                             \
        return real(path, flags, permissions);                                                                         \
    }

OPEN(open)
OPEN(open64)

/* Of a name in an open folder. */
static const char *path_in(int folder, const char *name, char *buffer) {
    if (folder == AT_FDCWD || name[0] == '/') return name;
    size_t length = strlen(path_of(folder, buffer));
    snprintf(buffer + length, PATH_MAX - length, "/%s", name);
    return buffer;
}

#define OPEN_IN(name)                                                                                                  \
    int name(int folder, const char *path, int flags, ...) {                                                           \
        static __typeof__(&name) real;                                                                                 \
        if (!real) real = REAL(name);                                                                                  \
        TAKE_PERMISSIONS                                                                                               \
        char buffer[PATH_MAX];                                                                                         \
        if (armed && flags & O_CREAT && fault(0, path_in(folder, path, buffer), "open")) return -1;                    \
        return real(folder, path, flags, permissions);                                                                 \
    }

OPEN_IN(openat)
OPEN_IN(openat64)

int mkdirat(int folder, const char *name, mode_t permissions) {
    static __typeof__(&mkdirat) real;
    if (!real) real = REAL(mkdirat);
    char buffer[PATH_MAX];
    if (lacks("mkdir", -1)) return LACKING;
    if (armed && fault(0, path_in(folder, name, buffer), "mkdir")) return -1;
    return real(folder, name, permissions);
}

int renameat(int from, const char *name, int folder, const char *new) {
    static __typeof__(&renameat) real;
    if (!real) real = REAL(renameat);
    char buffer[PATH_MAX];
    if (lacks("rename", -1)) return LACKING;
    if (armed && fault(0, path_in(folder, new, buffer), "rename")) return -1;
    return real(from, name, folder, new);
}

int renameat2(int from, const char *name, int folder, const char *new, unsigned flags) {
    static __typeof__(&renameat2) real;
    if (!real) real = REAL(renameat2);
    char buffer[PATH_MAX];
    const char *what = flags & 2 ? "exchange" : "rename"; /* RENAME_EXCHANGE */
    if (lacks("renameat2", -1) || lacks(what, -1)) return LACKING;
    if (armed && fault(0, path_in(folder, new, buffer), what)) return -1;
    return real(from, name, folder, new, flags);
}

ON_FD(ssize_t, write, (int fd, const void *data, size_t size), (fd, data, size), 0)
ON_FD(ssize_t, pwrite, (int fd, const void *data, size_t size, off_t at), (fd, data, size, at), 0)
ON_FD(ssize_t, pwrite64, (int fd, const void *data, size_t size, off64_t at), (fd, data, size, at), 0)
ON_FD(int, fsync, (int fd), (fd), 0)
ON_FD(int, fdatasync, (int fd), (fd), 0)
ON_FD(int, ftruncate, (int fd, off_t size), (fd, size), 0)
ON_FD(int, ftruncate64, (int fd, off64_t size), (fd, size), 0)
ON_FD(ssize_t, read, (int fd, void *data, size_t size), (fd, data, size), 1)
ON_FD(ssize_t, pread, (int fd, void *data, size_t size, off_t at), (fd, data, size, at), 1)
ON_FD(ssize_t, pread64, (int fd, void *data, size_t size, off64_t at), (fd, data, size, at), 1)
ON_FD(ssize_t, preadv64v2, (int fd, const struct iovec *to, int n, off64_t at, int flags), (fd, to, n, at, flags), 1)
ON_PATH(rename, (const char *path, const char *to), (path, to))
ON_PATH(link, (const char *path, const char *to), (path, to))
ON_PATH(unlink, (const char *path), (path))
ON_PATH(rmdir, (const char *path), (path))
ON_PATH(mkdir, (const char *path, mode_t permissions), (path, permissions))

int unlinkat(int folder, const char *name, int flags) {
    static __typeof__(&unlinkat) real;
    if (!real) real = REAL(unlinkat);
    char buffer[PATH_MAX];
    if (armed && fault(0, path_in(folder, name, buffer), flags & AT_REMOVEDIR ? "rmdir" : "unlinkat")) return -1;
    return real(folder, name, flags);
}

ssize_t copy_file_range(int from, off64_t *start, int fd, off64_t *at, size_t size, unsigned flags) {
    static __typeof__(&copy_file_range) real;
    if (!real) real = REAL(copy_file_range);
    char buffer[PATH_MAX];
    if (lacks("copy_file_range", fd)) return LACKING;
    if (armed && fault(1, path_of(from, buffer), "copied from")) return -1;
    if (armed && fault(0, path_of(fd, buffer), "copy_file_range")) return -1;
    return real(from, start, fd, at, size, flags);
}

#define ONLY_LACKING(type, name, parameters, arguments)                                                               \
    type name parameters {                                                                                             \
        static __typeof__(&name) real;                                                                                 \
        if (!real) real = REAL(name);                                                                                  \
        return lacks(#name, -1) ? LACKING : real arguments;                                                            \
    }

ONLY_LACKING(int, flock, (int fd, int operation), (fd, operation))

int posix_fadvise64(int fd, off64_t at, off64_t size, int advice) {
    static __typeof__(&posix_fadvise64) real;
    if (!real) real = REAL(posix_fadvise64);
    return lacks("posix_fadvise64", fd) ? missing_error : real(fd, at, size, advice);
}

int statvfs64(const char *path, struct statvfs64 *found) {
    static __typeof__(&statvfs64) real;
    if (!real) real = REAL(statvfs64);
    if (!lacks("statvfs64", -1)) return real(path, found);
    memset(found, 0, sizeof *found);
    return LACKING;
}

int ioctl(int fd, unsigned long request, ...) {
    static __typeof__(&ioctl) real;
    if (!real) real = REAL(ioctl);
    va_list rest;
    va_start(rest, request);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    return lacks("ioctl", fd) ? LACKING : real(fd, request, argument);
}
