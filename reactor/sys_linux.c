/* sys.h on Linux: the only file of the project that calls the system. */
#include "reactor/sys.h"
#include <arpa/inet.h>
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <malloc.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* ---- clock, randomness, memory ---- */

static uint64_t read_clock(clockid_t id)
{
    struct timespec time;
    int error = clock_gettime(id, &time);
    assert(!error); /* fails only for a clock that does not exist */
    (void)error;
    return (uint64_t)time.tv_sec * EVPT_NS_PER_S + (uint64_t)time.tv_nsec;
}

uint64_t evpt_sys_now_ns(void)
{
    uint64_t now_ns = read_clock(CLOCK_MONOTONIC);
    return now_ns ? now_ns : 1;
}

int64_t evpt_sys_wall_ns(void)
{
    return (int64_t)read_clock(CLOCK_REALTIME);
}

uint64_t evpt_sys_thread_cpu_ns(void)
{
    return read_clock(CLOCK_THREAD_CPUTIME_ID);
}

int evpt_sys_cpu_count(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof(set), &set) != 0)
        return 1;
    int count = CPU_COUNT(&set);
    return count > 0 ? count : 1;
}

void evpt_sys_random(void *buffer, size_t bytes)
{
    uint8_t *at = buffer;
    while (bytes) {
        ssize_t got = getrandom(at, bytes, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            abort(); /* no getrandom: a kernel before 3.17; weak numbers would be worse than none */
        at += got;
        bytes -= (size_t)got;
    }
}

void *evpt_sys_alloc(size_t bytes)
{
    return malloc(bytes);
}

void *evpt_sys_zalloc(size_t bytes)
{
    return calloc(1, bytes);
}

void *evpt_sys_realloc(void *old, size_t bytes)
{
    return realloc(old, bytes);
}

void evpt_sys_free(void *memory)
{
    free(memory);
}

uint64_t evpt_sys_process_cpu_ns(void)
{
    return read_clock(CLOCK_PROCESS_CPUTIME_ID);
}

size_t evpt_sys_resident(void)
{
    char text[64]; /* pages: size resident shared ... */
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t size = TEMP_FAILURE_RETRY(read(fd, text, sizeof(text) - 1));
    close(fd);
    text[size > 0 ? size : 0] = 0;
    unsigned long pages;
    return sscanf(text, "%*u %lu", &pages) == 1 ? pages * (size_t)sysconf(_SC_PAGESIZE) : 0;
}

void evpt_sys_give_back(void)
{
    (void)malloc_trim(0); /* 0: there was nothing to give back */
}

/* ---- addresses ---- */

static int parse_port(const char *text, uint16_t *ret_port)
{
    unsigned port = 0;
    size_t digits = 0;
    for (; text[digits] >= '0' && text[digits] <= '9' && digits < 5; digits++)
        port = port * 10 + (unsigned)(text[digits] - '0');
    if (!digits || text[digits] || port > 65535)
        return -EINVAL;
    *ret_port = (uint16_t)port;
    return 0;
}

int evpt_addr_parse(struct evpt_addr *ret_addr, const char *text)
{
    char host[INET6_ADDRSTRLEN];
    bool v6 = text[0] == '[';
    const char *start = v6 ? text + 1 : text;
    const char *end = strchr(start, v6 ? ']' : ':');
    if (!end || (size_t)(end - start) >= sizeof(host) || (v6 && end[1] != ':'))
        return -EINVAL;
    memcpy(host, start, (size_t)(end - start));
    host[end - start] = 0;

    uint16_t port;
    if (parse_port(end + (v6 ? 2 : 1), &port))
        return -EINVAL;
    struct evpt_addr addr = {0};
    if (v6) {
        addr.size = sizeof(addr.u.v6);
        addr.u.v6.sin6_family = AF_INET6;
        addr.u.v6.sin6_port = htons(port);
        if (inet_pton(AF_INET6, host, &addr.u.v6.sin6_addr) != 1)
            return -EINVAL;
    } else {
        addr.size = sizeof(addr.u.v4);
        addr.u.v4.sin_family = AF_INET;
        addr.u.v4.sin_port = htons(port);
        if (inet_pton(AF_INET, host, &addr.u.v4.sin_addr) != 1)
            return -EINVAL;
    }
    *ret_addr = addr;
    return 0;
}

int evpt_addr_local(struct evpt_addr *ret_addr, const char *path)
{
    struct evpt_addr addr = {0};
    size_t length = strlen(path);
    if (!length)
        return -EINVAL; /* would be an autobind address */
    if (length >= sizeof(addr.u.local.sun_path))
        return -ENAMETOOLONG;
    addr.size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length + 1);
    addr.u.local.sun_family = AF_UNIX;
    memcpy(addr.u.local.sun_path, path, length + 1);
    *ret_addr = addr;
    return 0;
}

const char *evpt_addr_format(const struct evpt_addr *addr, char *text, size_t size)
{
    char host[INET6_ADDRSTRLEN];
    int family = addr->size ? addr->u.any.sa_family : AF_UNSPEC;
    if (family == AF_INET) {
        inet_ntop(AF_INET, &addr->u.v4.sin_addr, host, sizeof(host));
        snprintf(text, size, "%s:%u", host, ntohs(addr->u.v4.sin_port));
    } else if (family == AF_INET6) {
        inet_ntop(AF_INET6, &addr->u.v6.sin6_addr, host, sizeof(host));
        snprintf(text, size, "[%s]:%u", host, ntohs(addr->u.v6.sin6_port));
    } else if (family == AF_UNIX) {
        /* the connecting end of a local socket has no path */
        bool named = addr->size > offsetof(struct sockaddr_un, sun_path);
        snprintf(text, size, "%s", named ? addr->u.local.sun_path : "local");
    } else {
        snprintf(text, size, "none");
    }
    return text;
}

bool evpt_addr_is_loopback(const struct evpt_addr *addr)
{
    if (!addr->size)
        return false;
    switch (addr->u.any.sa_family) {
    case AF_UNIX:
        return true;
    case AF_INET:
        return ntohl(addr->u.v4.sin_addr.s_addr) >> 24 == 127;
    case AF_INET6:
        return IN6_IS_ADDR_LOOPBACK(&addr->u.v6.sin6_addr) ||
               (IN6_IS_ADDR_V4MAPPED(&addr->u.v6.sin6_addr) &&
                addr->u.v6.sin6_addr.s6_addr[12] == 127);
    default:
        return false;
    }
}

uint16_t evpt_addr_port(const struct evpt_addr *addr)
{
    if (!addr->size)
        return 0;
    if (addr->u.any.sa_family == AF_INET)
        return ntohs(addr->u.v4.sin_port);
    return addr->u.any.sa_family == AF_INET6 ? ntohs(addr->u.v6.sin6_port) : 0;
}

/* ---- sockets ---- */

static int set_option(int fd, int level, int option, int value)
{
    return setsockopt(fd, level, option, &value, sizeof(value)) ? -errno : 0;
}

static int new_socket(const struct evpt_addr *addr)
{
    if (!addr->size)
        return -EINVAL;
    int fd = socket(addr->u.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (addr->u.any.sa_family != AF_UNIX) {
        int error = set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
        if (error) {
            close(fd);
            return error;
        }
    }
    return fd;
}

/* Removes a socket file that nobody listens on: what a killed process leaves behind. */
static int remove_stale(const struct evpt_addr *addr)
{
    struct stat status;
    if (lstat(addr->u.local.sun_path, &status) || !S_ISSOCK(status.st_mode))
        return -EADDRINUSE;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    /* a live one with a full backlog gives EAGAIN, so only a refusal means that nobody is there */
    bool stale = connect(fd, &addr->u.any, addr->size) && errno == ECONNREFUSED;
    close(fd);
    if (!stale)
        return -EADDRINUSE;
    return unlink(addr->u.local.sun_path) ? -errno : 0;
}

static int bind_local(int fd, const struct evpt_addr *addr)
{
    /* The mode of the descriptor becomes the mode of the file, so there is no moment at which
     * others could connect, and the process's umask stays as it is. */
    if (fchmod(fd, 0600))
        return -errno;
    if (!bind(fd, &addr->u.any, addr->size))
        return 0;
    if (errno != EADDRINUSE)
        return -errno;
    int error = remove_stale(addr);
    if (error)
        return error;
    return bind(fd, &addr->u.any, addr->size) ? -errno : 0;
}

static int bind_tcp(int fd, const struct evpt_addr *addr)
{
    int error = set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (error)
        return error;
    return bind(fd, &addr->u.any, addr->size) ? -errno : 0;
}

int evpt_sys_listen(const struct evpt_addr *addr, int backlog)
{
    int fd = new_socket(addr);
    if (fd < 0)
        return fd;
    int error = addr->u.any.sa_family == AF_UNIX ? bind_local(fd, addr) : bind_tcp(fd, addr);
    if (!error && listen(fd, backlog))
        error = -errno;
    if (error) {
        close(fd);
        return error;
    }
    return fd;
}

int evpt_sys_accept(int fd, struct evpt_addr *ret_peer)
{
    for (;;) {
        struct evpt_addr peer = {.size = sizeof(peer.u)};
        /* TCP_NODELAY comes with the listening socket: Linux hands it on, one call less */
        int connection = accept4(fd, &peer.u.any, &peer.size, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (connection >= 0) {
            *ret_peer = peer;
            return connection;
        }
        if (errno != EINTR && errno != ECONNABORTED)
            return -errno;
    }
}

int evpt_sys_connect(const struct evpt_addr *addr)
{
    int fd = new_socket(addr);
    if (fd < 0)
        return fd;
    /* EINTR: the attempt goes on by itself, like EINPROGRESS */
    if (connect(fd, &addr->u.any, addr->size) && errno != EINPROGRESS && errno != EINTR) {
        int error = -errno;
        close(fd);
        return error;
    }
    return fd;
}

static bool is_connected_to_itself(int fd)
{
    struct evpt_addr local, peer;
    return !evpt_sys_local_addr(fd, &local) && !evpt_sys_peer_addr(fd, &peer) &&
           peer.u.any.sa_family != AF_UNIX && local.size == peer.size &&
           !memcmp(&local.u, &peer.u, local.size);
}

int evpt_sys_connect_result(int fd)
{
    int error = 0;
    socklen_t size = sizeof(error);
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size))
        return -errno;
    if (error)
        return -error;
    /* A connect to a free port of this machine can be given that very port as its own, and TCP then
     * connects the socket with itself ("simultaneous open"). Nobody listens there. */
    return is_connected_to_itself(fd) ? -ECONNREFUSED : 0;
}

int evpt_sys_local_addr(int fd, struct evpt_addr *ret_addr)
{
    struct evpt_addr addr = {.size = sizeof(addr.u)};
    if (getsockname(fd, &addr.u.any, &addr.size))
        return -errno;
    *ret_addr = addr;
    return 0;
}

int evpt_sys_peer_addr(int fd, struct evpt_addr *ret_addr)
{
    struct evpt_addr addr = {.size = sizeof(addr.u)};
    if (getpeername(fd, &addr.u.any, &addr.size))
        return -errno;
    *ret_addr = addr;
    return 0;
}

bool evpt_sys_peer_is_own_user(int fd)
{
    struct ucred peer;
    socklen_t size = sizeof(peer);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) || size != sizeof(peer))
        return false;
    return peer.uid == 0 || peer.uid == geteuid();
}

int evpt_sys_socketpair(int ret_fds[2])
{
    return socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ret_fds) ? -errno : 0;
}

int evpt_sys_shutdown_write(int fd)
{
    return shutdown(fd, SHUT_WR) ? -errno : 0;
}

int evpt_sys_set_send_buffer(int fd, int bytes)
{
    return set_option(fd, SOL_SOCKET, SO_SNDBUF, bytes);
}

int evpt_sys_set_notsent_lowat(int fd, int bytes)
{
    return set_option(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, bytes);
}

int evpt_sys_set_user_timeout(int fd, uint32_t ms)
{
    return set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, ms < INT_MAX ? (int)ms : INT_MAX);
}

int evpt_sys_set_keepalive(int fd, uint32_t ms, int silent_max)
{
    const uint64_t max = 32767; /* Linux takes no more */
    uint64_t wanted = (ms + UINT64_C(999)) / 1000;
    int seconds = (int)(wanted < max ? wanted : max);
    int error = set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, seconds);
    if (!error)
        error = set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, seconds);
    if (!error)
        error = set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, silent_max - 1); /* the idle one counts */
    return error ? error : set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
}

ssize_t evpt_sys_read(int fd, void *buffer, size_t bytes)
{
    ssize_t got = TEMP_FAILURE_RETRY(read(fd, buffer, bytes));
    return got < 0 ? -errno : got;
}

ssize_t evpt_sys_write(int fd, const void *buffer, size_t bytes)
{
    ssize_t sent = TEMP_FAILURE_RETRY(send(fd, buffer, bytes, MSG_NOSIGNAL));
    if (sent < 0 && errno == ENOTSOCK)
        sent = TEMP_FAILURE_RETRY(write(fd, buffer, bytes));
    return sent < 0 ? -errno : sent;
}

ssize_t evpt_sys_writev(int fd, const struct iovec *vec, int count)
{
    struct msghdr message = {.msg_iov = (struct iovec *)vec, .msg_iovlen = (size_t)count};
    ssize_t sent = TEMP_FAILURE_RETRY(sendmsg(fd, &message, MSG_NOSIGNAL));
    if (sent < 0 && errno == ENOTSOCK)
        sent = TEMP_FAILURE_RETRY(writev(fd, vec, count));
    return sent < 0 ? -errno : sent;
}

void evpt_sys_close(int fd)
{
    /* not retried after EINTR: Linux has released the number by then, it may be another's already
     */
    if (fd >= 0)
        (void)close(fd); /* an error says nothing that the owner of a socket could act on */
}

int evpt_sys_count_fds(void)
{
    DIR *folder = opendir("/proc/self/fd");
    if (!folder)
        return -errno;
    int count = 0;
    for (const struct dirent *entry; (entry = readdir(folder));)
        count += entry->d_name[0] != '.';
    closedir(folder);
    return count - 1; /* the folder's own */
}

int evpt_sys_reserve_fd(void)
{
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

/* ---- waiting ---- */

int evpt_sys_epoll_new(void)
{
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    return epoll < 0 ? -errno : epoll;
}

int evpt_sys_epoll_set(int epoll, enum evpt_sys_epoll_op op, int fd, uint32_t events,
                       uint64_t token)
{
    static const int ops[] = {[EVPT_EPOLL_ADD] = EPOLL_CTL_ADD,
                              [EVPT_EPOLL_CHANGE] = EPOLL_CTL_MOD,
                              [EVPT_EPOLL_REMOVE] = EPOLL_CTL_DEL};
    struct epoll_event event = {.data.u64 = token};
    if (events & EVPT_READ)
        event.events |= EPOLLIN;
    if (events & EVPT_WRITE)
        event.events |= EPOLLOUT;
    if (events & EVPT_EDGE)
        event.events |= EPOLLET;
    return epoll_ctl(epoll, ops[op], fd, &event) ? -errno : 0;
}

/* Milliseconds for poll and epoll_wait: rounded up, or a deadline half a millisecond away would be
 * waited for with a busy loop. */
static int timeout_ms(uint64_t wait_ns)
{
    uint64_t ms = wait_ns / EVPT_NS_PER_MS + (wait_ns % EVPT_NS_PER_MS != 0);
    return ms < INT_MAX ? (int)ms : INT_MAX;
}

static struct timespec to_timespec(uint64_t ns)
{
    return (struct timespec){.tv_sec = (time_t)(ns / EVPT_NS_PER_S),
                             .tv_nsec = (long)(ns % EVPT_NS_PER_S)};
}

static int wait_until(int epoll, struct epoll_event *events, int max, uint64_t now_ns,
                      uint64_t deadline_ns)
{
    if (deadline_ns <= now_ns)
        return epoll_wait(epoll, events, max, 0);
    if (deadline_ns == EVPT_FOREVER)
        return epoll_wait(epoll, events, max, -1);
    struct timespec timeout = to_timespec(deadline_ns - now_ns);
    int count = epoll_pwait2(epoll, events, max, &timeout, NULL);
    /* ENOSYS: a kernel before 5.11; EPERM: how older container sandboxes answer what they do not
     * know. Asked again each time: the answer costs less than the memory of it is worth. */
    if (count < 0 && (errno == ENOSYS || errno == EPERM))
        count = epoll_wait(epoll, events, max, timeout_ms(deadline_ns - now_ns));
    return count;
}

int evpt_sys_epoll_wait(int epoll, struct evpt_sys_event *events, int max, uint64_t now_ns,
                        uint64_t deadline_ns)
{
    enum { BATCH_MAX = 256 }; /* 3 KiB of stack */
    struct epoll_event batch[BATCH_MAX];
    int count = wait_until(epoll, batch, max < BATCH_MAX ? max : BATCH_MAX, now_ns, deadline_ns);
    if (count < 0)
        return errno == EINTR ? 0 : -errno;
    for (int i = 0; i < count; i++) {
        uint32_t bits = batch[i].events;
        events[i].token = batch[i].data.u64;
        events[i].events = (bits & EPOLLIN ? EVPT_READ : 0u) | (bits & EPOLLOUT ? EVPT_WRITE : 0u) |
                           (bits & (EPOLLHUP | EPOLLERR) ? EVPT_HANGUP : 0u);
    }
    return count;
}

int evpt_sys_eventfd(void)
{
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return fd < 0 ? -errno : fd;
}

void evpt_sys_eventfd_signal(int fd)
{
    int saved = errno; /* may run in a signal handler */
    uint64_t one = 1;
    ssize_t written = TEMP_FAILURE_RETRY(write(fd, &one, sizeof(one)));
    (void)written; /* EAGAIN: the counter is full, so the descriptor is readable anyway */
    errno = saved;
}

void evpt_sys_eventfd_clear(int fd)
{
    uint64_t count;
    ssize_t got = TEMP_FAILURE_RETRY(read(fd, &count, sizeof(count)));
    (void)got; /* EAGAIN: it is clear */
}

bool evpt_sys_eventfd_wait(int fd, uint64_t deadline_ns)
{
    for (;;) {
        struct pollfd poll = {.fd = fd, .events = POLLIN};
        struct timespec timeout, *until = NULL;
        if (deadline_ns != EVPT_FOREVER) {
            uint64_t now_ns = deadline_ns ? evpt_sys_now_ns() : 0;
            timeout = to_timespec(deadline_ns > now_ns ? deadline_ns - now_ns : 0);
            until = &timeout;
        }
        int ready = ppoll(&poll, 1, until, NULL);
        if (ready > 0) {
            evpt_sys_eventfd_clear(fd);
            return true;
        }
        if (ready == 0)
            return false;
        assert(errno == EINTR); /* the rest are programming errors: a bad descriptor or pointer */
    }
}

int evpt_sys_signalfd(const int *signals)
{
    sigset_t set;
    sigemptyset(&set);
    for (; *signals; signals++)
        sigaddset(&set, *signals);
    int error = pthread_sigmask(SIG_BLOCK, &set, NULL);
    if (error)
        return -error;
    int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return fd < 0 ? -errno : fd;
}

int evpt_sys_signalfd_read(int fd)
{
    struct signalfd_siginfo info;
    ssize_t got = TEMP_FAILURE_RETRY(read(fd, &info, sizeof(info)));
    return got == sizeof(info) ? (int)info.ssi_signo : 0;
}

/* ---- files ---- */

/* Reads until the end: the size that stat gives is a first guess, /proc files have 0. */
static int read_all(int fd, size_t guess, size_t max, char **ret_text, size_t *ret_size)
{
    size_t room = guess + 1, size = 0; /* one byte more shows whether it goes on */
    char *text = evpt_sys_alloc(room + 1);
    int error = text ? 0 : -ENOMEM;
    while (!error) {
        ssize_t got = evpt_sys_read(fd, text + size, room - size);
        if (got <= 0) {
            error = (int)got;
            break;
        }
        size += (size_t)got;
        if (size > max) {
            error = -EFBIG;
        } else if (size == room) {
            room *= 2;
            char *larger = evpt_sys_realloc(text, room + 1);
            if (!larger)
                error = -ENOMEM;
            else
                text = larger;
        }
    }
    if (error) {
        evpt_sys_free(text);
        return error;
    }
    text[size] = 0;
    *ret_text = text;
    *ret_size = size;
    return 0;
}

int evpt_sys_file_read(const char *path, size_t max, char **ret_text, size_t *ret_size)
{
    /* non-blocking, or a FIFO of that name would hold the caller until somebody writes to it */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return -errno;
    struct stat status;
    int error = 0;
    if (fstat(fd, &status))
        error = -errno;
    else if (!S_ISREG(status.st_mode))
        error = S_ISDIR(status.st_mode) ? -EISDIR : -EINVAL;
    else if ((uintmax_t)status.st_size > max)
        error = -EFBIG;
    else
        error = read_all(fd, (size_t)status.st_size, max, ret_text, ret_size);
    close(fd);
    return error;
}

/* Length of the folder part of a path: up to the last slash, that of the root included. */
static size_t folder_length(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!slash)
        return 0;
    return slash == path ? 1 : (size_t)(slash - path);
}

static int sync_folder(const char *path)
{
    size_t length = folder_length(path);
    char folder[PATH_MAX];
    if (length >= sizeof(folder))
        return -ENAMETOOLONG;
    memcpy(folder, length ? path : ".", length ? length : 1);
    folder[length ? length : 1] = 0;
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int error = fsync(fd) ? -errno : 0;
    close(fd);
    return error;
}

/* The new file gets the mode of the one that it replaces. */
static int fill_file(int fd, const char *replaced, const void *bytes, size_t size)
{
    struct stat status;
    mode_t mode = stat(replaced, &status) ? 0640 : status.st_mode & 0777;
    if (fchmod(fd, mode))
        return -errno;
    int error = evpt_sys_file_write_all(fd, bytes, size);
    if (!error && fsync(fd))
        error = -errno;
    return error;
}

static int replace_file(const char *path, const void *bytes, size_t size)
{
    char temporary[PATH_MAX];
    int length = snprintf(temporary, sizeof(temporary), "%s.XXXXXX", path);
    if (length < 0 || (size_t)length >= sizeof(temporary))
        return -ENAMETOOLONG;
    int fd = mkostemp(temporary, O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int error = fill_file(fd, path, bytes, size);
    if (close(fd) && !error)
        error = -errno;
    if (!error && rename(temporary, path))
        error = -errno;
    if (error) {
        (void)unlink(temporary); /* the first error is the one to report */
        return error;
    }
    return sync_folder(path);
}

int evpt_sys_file_replace(const char *path, const void *bytes, size_t size)
{
    char target[PATH_MAX];
    if (realpath(path, target))
        return replace_file(target, bytes, size);
    return errno == ENOENT ? replace_file(path, bytes, size) : -errno; /* a new file */
}

int evpt_sys_file_append_open(const char *path)
{
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640);
    return fd < 0 ? -errno : fd;
}

static int write_all(int fd, const uint8_t *at, size_t size, size_t *ret_written)
{
    *ret_written = 0;
    while (*ret_written < size) {
        ssize_t written = write(fd, at + *ret_written, size - *ret_written);
        if (written >= 0) {
            *ret_written += (size_t)written;
        } else if (errno == EAGAIN) {
            /* standard error may be a pipe that somebody has made non-blocking */
            struct pollfd wait = {.fd = fd, .events = POLLOUT};
            if (poll(&wait, 1, -1) < 0 && errno != EINTR)
                return -errno;
        } else if (errno != EINTR) {
            return -errno;
        }
    }
    return 0;
}

int evpt_sys_file_write_all(int fd, const void *bytes, size_t size)
{
    size_t written;
    return write_all(fd, bytes, size, &written);
}

int evpt_sys_file_append(int fd, const void *bytes, size_t size)
{
    size_t written;
    struct stat status;
    int error = write_all(fd, bytes, size, &written);
    if (error && written && !fstat(fd, &status) && S_ISREG(status.st_mode) &&
        status.st_size >= (off_t)written && ftruncate(fd, status.st_size - (off_t)written))
        return -errno;
    return error;
}

int evpt_sys_file_remove(const char *path)
{
    return unlink(path) ? -errno : 0;
}

bool evpt_sys_file_exists(const char *path)
{
    return access(path, F_OK) == 0;
}

int evpt_sys_make_parent(const char *path)
{
    size_t length = folder_length(path);
    char folder[PATH_MAX];
    if (!length)
        return 0;
    if (length >= sizeof(folder))
        return -ENAMETOOLONG;
    memcpy(folder, path, length);
    folder[length] = 0;
    if (!mkdir(folder, 0750))
        return 0;
    struct stat status;
    if (errno == EEXIST && !stat(folder, &status))
        return S_ISDIR(status.st_mode) ? 0 : -ENOTDIR;
    return -errno;
}
