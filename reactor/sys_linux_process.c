/* sys.h on Linux, continued: what the system knows of this process, and who is told of it. */
#include "reactor/sys.h"
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static uint64_t read_clock(clockid_t id)
{
    struct timespec time = {0};
    (void)clock_gettime(id, &time); /* 0 where there is no such clock */
    return (uint64_t)time.tv_sec * EVPT_NS_PER_S + (uint64_t)time.tv_nsec;
}

/* Fields 20, 22, 23 and 24 of /proc/self/stat (proc(5)): threads, start in ticks after the boot,
 * bytes of memory, pages of it that are resident. The second field is the program's name, which may
 * hold anything, a bracket too: the others come behind the last one. */
static void read_stat(struct evpt_sys_process *process)
{
    char text[1024]; /* a name of 15 bytes and numbers */
    int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    if (fd >= 0)
        close(fd);
    if (size < 0)
        return;
    text[size] = 0;
    const char *rest = strrchr(text, ')');
    unsigned long long threads, start, bytes, pages;
    if (!rest || sscanf(rest,
                        ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d "
                        "%llu %*d %llu %llu %llu",
                        &threads, &start, &bytes, &pages) != 4)
        return;
    uint64_t tick_ns = EVPT_NS_PER_S / (uint64_t)sysconf(_SC_CLK_TCK);
    uint64_t age_ns = read_clock(CLOCK_BOOTTIME) - start * tick_ns;
    process->threads = threads;
    process->virtual_bytes = bytes;
    process->resident_bytes = pages * (uint64_t)sysconf(_SC_PAGESIZE);
    process->started_ns = evpt_sys_wall_ns() - (int64_t)age_ns;
}

void evpt_sys_process(struct evpt_sys_process *ret_process)
{
    struct evpt_sys_process process = {.cpu_ns = read_clock(CLOCK_PROCESS_CPUTIME_ID)};
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
        process.fds_max = limit.rlim_cur;
    int fds = evpt_sys_count_fds();
    process.fds = fds > 0 ? (uint64_t)fds : 0;
    read_stat(&process);
    *ret_process = process;
}
