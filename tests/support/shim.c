/* Faults in the system calls on files below one directory, told what to do through a mapped file (shim.py).
   LD_PRELOAD. The k-th call of the chosen kind from now on fails, is short, kills the process, waits or loses data. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

enum { WRITE, PWRITE, FDATASYNC, FSYNC, RENAME, OPEN, FTRUNCATE, FALLOCATE, UNLINK, KINDS };
enum { NOTHING, FAIL, SHORT, KILL, DELAY, DROP };
#define ANY KINDS

struct control {
    long kind, action, when, times, number; /* number: errno, or milliseconds */
    long seen, fired, calls[KINDS];
};
static struct control *control;
static const char *below;

#define MOST 65536
static struct { int fd; off_t offset; size_t size; } unsynced[MOST];
static int unsynced_count;

#define REAL(name) ((typeof(&name))real(#name))
static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("SHIM_CONTROL");
    below = getenv("SHIM_BELOW");
    int fd = path ? REAL(open)(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *map = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (map != MAP_FAILED) control = map;
}

static int is_ours(const char *path) { return control && below && path && !strncmp(path, below, strlen(below)); }
static int is_our_fd(int fd) {
    char link[64], path[4096];
    if (!control) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size < 0) return 0;
    path[size] = 0;
    return is_ours(path);
}

/* What to do with this call. KILL and DELAY are done here. */
static int fate(int kind) {
    __sync_fetch_and_add(&control->calls[kind], 1);
    if (control->action == NOTHING || (control->kind != ANY && control->kind != kind)) return NOTHING;
    long seen = __sync_add_and_fetch(&control->seen, 1);
    if (seen < control->when || seen >= control->when + control->times) return NOTHING;
    __sync_fetch_and_add(&control->fired, 1);
    if (control->action == KILL) {
        kill(getpid(), SIGKILL);
        for (;;) pause();
    }
    if (control->action == DELAY) {
        struct timespec rest = {control->number / 1000, control->number % 1000 * 1000000};
        nanosleep(&rest, NULL);
        return NOTHING;
    }
    if (control->action == FAIL || control->action == DROP) errno = (int)control->number;
    return (int)control->action;
}

#define FAILS(ours, kind) ((ours) && fate(kind) == FAIL)

static ssize_t put(int fd, const void *data, size_t size, off_t offset) {
    if (is_our_fd(fd)) {
        int what = fate(PWRITE);
        if (what == FAIL) return -1;
        if (what == SHORT && size > 1) size /= 2;
        int at = __sync_fetch_and_add(&unsynced_count, 1);
        if (at < MOST) { unsynced[at].fd = fd; unsynced[at].offset = offset; unsynced[at].size = size; }
    }
    return REAL(pwrite)(fd, data, size, offset);
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) { return put(fd, data, size, offset); }
ssize_t pwrite64(int fd, const void *data, size_t size, off_t offset) { return put(fd, data, size, offset); }
ssize_t write(int fd, const void *data, size_t size) {
    if (is_our_fd(fd)) {
        int what = fate(WRITE);
        if (what == FAIL) return -1;
        if (what == SHORT && size > 1) size /= 2;
    }
    return REAL(write)(fd, data, size);
}

static int drop(int fd) { /* the kernel has given up the dirty pages */
    for (int i = 0; i < unsynced_count && i < MOST; i++) {
        if (unsynced[i].fd != fd) continue;
        char *zeros = calloc(1, unsynced[i].size);
        REAL(pwrite)(fd, zeros, unsynced[i].size, unsynced[i].offset);
        free(zeros);
    }
    unsynced_count = 0;
    errno = EIO;
    return -1;
}
int fdatasync(int fd) {
    if (is_our_fd(fd)) {
        int what = fate(FDATASYNC);
        if (what == FAIL) return -1;
        if (what == DROP) return drop(fd);
        unsynced_count = 0;
    }
    return REAL(fdatasync)(fd);
}
int fsync(int fd) { return FAILS(is_our_fd(fd), FSYNC) ? -1 : REAL(fsync)(fd); }
int ftruncate(int fd, off_t size) { return FAILS(is_our_fd(fd), FTRUNCATE) ? -1 : REAL(ftruncate)(fd, size); }
int ftruncate64(int fd, off_t size) { return FAILS(is_our_fd(fd), FTRUNCATE) ? -1 : REAL(ftruncate)(fd, size); }
int posix_fallocate(int fd, off_t from, off_t size) {
    return FAILS(is_our_fd(fd), FALLOCATE) ? (int)control->number : REAL(posix_fallocate)(fd, from, size);
}
int posix_fallocate64(int fd, off_t from, off_t size) { return posix_fallocate(fd, from, size); }
int rename(const char *from, const char *to) { return FAILS(is_ours(to), RENAME) ? -1 : REAL(rename)(from, to); }
int renameat(int a, const char *from, int b, const char *to) {
    return FAILS(is_ours(to), RENAME) ? -1 : REAL(renameat)(a, from, b, to);
}
int unlink(const char *path) { return FAILS(is_ours(path), UNLINK) ? -1 : REAL(unlink)(path); }
int unlinkat(int fd, const char *path, int flags) {
    return FAILS(is_ours(path), UNLINK) ? -1 : REAL(unlinkat)(fd, path, flags);
}
#define OPENS(name) \
    int name(const char *path, int flags, ...) { \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest); \
        return FAILS(is_ours(path), OPEN) ? -1 : REAL(open)(path, flags, mode); \
    }
OPENS(open)
OPENS(open64)
