/* sys.h on Linux, continued: what the system knows of this process, and who is told of it. */
#include "reactor/sys.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
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

/* ---- who is told of it ---- */

static int local_address(struct sockaddr_un *ret_addr, socklen_t *ret_size, const char *name)
{
    size_t length = strlen(name);
    bool abstract = *name == '@';
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    if (!length || (abstract && length == 1))
        return -EINVAL;
    if (length >= sizeof(addr.sun_path))
        return -ENAMETOOLONG;
    memcpy(addr.sun_path, name, length);
    if (abstract)
        addr.sun_path[0] = 0; /* and no zero behind it: every byte counts */
    *ret_addr = addr;
    *ret_size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length + !abstract);
    return 0;
}

/* Connected, since only then poll tells whether the receiver has room. */
static int send_connected(int fd, const void *bytes, size_t size)
{
    struct pollfd wait = {.fd = fd, .events = POLLOUT};
    for (int attempt = 0; attempt < 2; attempt++) {
        if (TEMP_FAILURE_RETRY(send(fd, bytes, size, MSG_NOSIGNAL)) >= 0)
            return 0;
        if (errno != EAGAIN || attempt || TEMP_FAILURE_RETRY(poll(&wait, 1, 1000)) <= 0)
            break;
    }
    return -errno;
}

int evpt_sys_send_datagram(const char *to, const void *bytes, size_t size)
{
    struct sockaddr_un addr;
    socklen_t addr_size;
    int error = local_address(&addr, &addr_size, to);
    if (error)
        return error;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (connect(fd, (const struct sockaddr *)&addr, addr_size))
        error = -errno;
    else
        error = send_connected(fd, bytes, size);
    close(fd);
    return error;
}
