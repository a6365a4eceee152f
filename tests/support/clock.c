// Preloaded into a server: its wall clock is wrong by the seconds in the file that OVERWIRE_TEST_CLOCK names.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static volatile long *wrong_by;

__attribute__((constructor)) static void start(void) {
    int file = open(getenv("OVERWIRE_TEST_CLOCK"), O_RDONLY);
    wrong_by = mmap(NULL, sizeof *wrong_by, PROT_READ, MAP_SHARED, file, 0);
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = syscall(SYS_clock_gettime, clock, now);
    if (!failed && clock == CLOCK_REALTIME)
        now->tv_sec += *wrong_by;
    return failed;
}
