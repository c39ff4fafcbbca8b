/* A wall clock that is set while the process runs, told through a mapped file (clocks.py). LD_PRELOAD. Only the wall
   clock: the monotonic one goes on, as on a real machine. A wait for a moment of the wall clock lasts until this clock
   says so, as the kernel would do it: in slices, so that a jump in the middle of the wait counts. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000L
#define SLICE (SECOND / 50)
#define A_DATE (1000000000L * SECOND) /* what is less is no moment of the wall clock, but of the monotonic one */

struct control { long offset_ns, is_frozen, frozen_ns, reads, waits; };
static struct control *control;

static void *real(const char *name, const char *version) {
    void *found = version ? dlvsym(RTLD_NEXT, name, version) : NULL;
    return found ? found : dlsym(RTLD_NEXT, name);
}
/* Of two versions of a function dlsym may give the older: the one of today on x86-64 is asked for by name. */
#define REAL(name, version) ({ static typeof(&name) f; if (!f) f = (typeof(&name))real(#name, version); f; })

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("CLOCK_CONTROL");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *map = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (map != MAP_FAILED) control = map;
}

static long to_ns(const struct timespec *time) { return time->tv_sec * SECOND + time->tv_nsec; }
static struct timespec to_timespec(long ns) { return (struct timespec){ns / SECOND, ns % SECOND}; }
static long true_ns(void) {
    struct timespec now;
    REAL(clock_gettime, NULL)(CLOCK_REALTIME, &now);
    return to_ns(&now);
}
static long wall_ns(void) {
    if (!control) return true_ns();
    __sync_fetch_and_add(&control->reads, 1);
    return control->is_frozen ? control->frozen_ns : true_ns() + control->offset_ns;
}

int clock_gettime(clockid_t id, struct timespec *out) {
    if (id != CLOCK_REALTIME && id != CLOCK_REALTIME_COARSE) return REAL(clock_gettime, NULL)(id, out);
    *out = to_timespec(wall_ns());
    return 0;
}
int gettimeofday(struct timeval *restrict out, void *restrict zone) {
    (void)zone;
    long now = wall_ns();
    *out = (struct timeval){now / SECOND, now % SECOND / 1000};
    return 0;
}
time_t time(time_t *out) {
    time_t now = wall_ns() / SECOND;
    if (out) *out = now;
    return now;
}
int timespec_get(struct timespec *out, int base) {
    *out = to_timespec(wall_ns());
    return base;
}

/* How far a wait for this moment may go by the true clock before this one is asked again; counts the wait. */
static struct timespec slice(const struct timespec *until) {
    __sync_fetch_and_add(&control->waits, 1);
    long left = to_ns(until) - wall_ns();
    return to_timespec(true_ns() + (left < 0 ? 0 : left < SLICE ? left : SLICE));
}
static int is_wall(const struct timespec *until) { return control && until && to_ns(until) > A_DATE; }
static int is_over(const struct timespec *until) { return to_ns(until) <= wall_ns(); }

int sem_timedwait(sem_t *restrict sem, const struct timespec *restrict until) {
    if (!is_wall(until)) return REAL(sem_timedwait, NULL)(sem, until);
    for (;;) {
        struct timespec next = slice(until);
        if (REAL(sem_timedwait, NULL)(sem, &next) == 0) return 0;
        if (errno != ETIMEDOUT || is_over(until)) return -1;
    }
}
int pthread_cond_timedwait(
    pthread_cond_t *restrict cond, pthread_mutex_t *restrict mutex, const struct timespec *restrict until) {
    if (!is_wall(until)) return REAL(pthread_cond_timedwait, "GLIBC_2.3.2")(cond, mutex, until);
    struct timespec next = slice(until);
    int result = REAL(pthread_cond_timedwait, "GLIBC_2.3.2")(cond, mutex, &next);
    return result == ETIMEDOUT && !is_over(until) ? 0 : result; /* 0: waking up for nothing is allowed */
}
long syscall(long number, ...) {
    long a[6];
    va_list given;
    va_start(given, number);
    for (int i = 0; i < 6; i++) a[i] = va_arg(given, long);
    va_end(given);
    const struct timespec *until = number == SYS_futex ? (const struct timespec *)a[3] : NULL;
    if (number == SYS_futex && (a[1] & FUTEX_CLOCK_REALTIME) && is_wall(until)) {
        struct timespec next = slice(until);
        long result = REAL(syscall, NULL)(number, a[0], a[1], a[2], &next, a[4], a[5]);
        if (result < 0 && errno == ETIMEDOUT && !is_over(until)) errno = EINTR; /* to be asked again */
        return result;
    }
    return REAL(syscall, NULL)(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
