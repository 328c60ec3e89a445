/* Machine: a wall clock that is wrong and a disk that is full, for one process. Preloaded into nodes and stores by
 * tests/chaos/machine.py, which shares the file named by MACHINE with us: two little-endian int64, the nanoseconds by
 * which the wall clock is ahead, and the bytes that regular files may still grow by (negative: no bound).
 * Monotonic clocks, sockets and pipes are left alone. A write that does not fit is cut short, the next one fails, as on
 * a real disk. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

struct state { volatile int64_t ahead_ns; volatile int64_t room_bytes; };
static struct state neutral = {0, -1};
static struct state *machine = &neutral;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("MACHINE");
    int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *shared = mmap(NULL, sizeof *machine, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (shared != MAP_FAILED) machine = shared;
    close(file);
}

static void shift(struct timespec *at) {
    int64_t ns = (int64_t)at->tv_sec * 1000000000 + at->tv_nsec + machine->ahead_ns;
    at->tv_sec = ns / 1000000000;
    at->tv_nsec = ns % 1000000000;
}

int clock_gettime(clockid_t clock, struct timespec *at) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(clock, at);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) shift(at);
    return failed;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    (void)zone;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME_COARSE, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}

/* Whether writes to this file are bounded now. */
static int bounded(int file) {
    struct stat about;
    return machine->room_bytes >= 0 && !fstat(file, &about) && S_ISREG(about.st_mode);
}

ssize_t write(int file, const void *bytes, size_t count) {
    if (count && bounded(file)) {
        int64_t room = machine->room_bytes;
        if (room == 0) {
            errno = ENOSPC;
            return -1;
        }
        if ((int64_t)count > room) count = room;
        machine->room_bytes = room - (int64_t)count;
    }
    return syscall(SYS_write, file, bytes, count);
}

ssize_t writev(int file, const struct iovec *pieces, int count) {
    if (count > 0 && bounded(file)) return write(file, pieces[0].iov_base, pieces[0].iov_len);
    return syscall(SYS_writev, file, pieces, count);
}
