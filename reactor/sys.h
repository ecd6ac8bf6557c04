/* The one door to the outside: clock, randomness, memory, sockets, epoll, eventfd, signals, files.
 *
 * Everything else in evpt calls these functions and never the system (tests/rules checks it), so
 * that sys_linux.c can be exchanged at link time for a simulated machine with a virtual clock.
 *
 * Functions that can fail return a count or 0, or `-errno`. EINTR is retried inside. Descriptors
 * are made close-on-exec and non-blocking. Any thread, unless said otherwise.
 */
#ifndef EVPT_REACTOR_SYS_H
#define EVPT_REACTOR_SYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <netinet/in.h>

#define EVPT_NS_PER_MS UINT64_C(1000000)
#define EVPT_NS_PER_S UINT64_C(1000000000)
#define EVPT_FOREVER UINT64_MAX /* a deadline that never comes */

/* ---- clock, randomness, memory ---- */

/* Monotonic nanoseconds; never 0. */
uint64_t evpt_sys_now_ns(void);
/* Wall clock, nanoseconds since the epoch. */
int64_t evpt_sys_wall_ns(void);
/* CPU time that the calling thread has used, nanoseconds. */
uint64_t evpt_sys_thread_cpu_ns(void);
/* Processors that this process may run on, at least 1. */
int evpt_sys_cpu_count(void);
/* This process as the system sees it. What cannot be found out is 0. */
struct evpt_sys_process {
    uint64_t cpu_ns, resident_bytes, virtual_bytes;
    uint64_t fds, fds_max; /* descriptors open; the soft limit */
    int64_t started_ns;    /* wall clock */
    uint64_t threads;
};
void evpt_sys_process(struct evpt_sys_process *ret_process);
/* Fills `bytes` of buffer with random bytes; cannot fail. */
void evpt_sys_random(void *buffer, size_t bytes);

/* malloc, calloc, realloc and free; NULL where memory is refused, which callers must handle. */
void *evpt_sys_alloc(size_t bytes);
void *evpt_sys_zalloc(size_t bytes);
void *evpt_sys_realloc(void *old, size_t bytes);
void evpt_sys_free(void *memory);

/* CPU time that the process has used, nanoseconds. */
uint64_t evpt_sys_process_cpu_ns(void);
/* Bytes of memory that the process occupies; 0 where that cannot be found out. */
size_t evpt_sys_resident(void);
/* The allocator returns what is free to the system. Takes milliseconds, and others who want memory
 * wait meanwhile. */
void evpt_sys_give_back(void);

/* ---- addresses ---- */

struct evpt_addr {
    socklen_t size; /* 0: no address */
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
        struct sockaddr_un local;
    } u;
};

/* "1.2.3.4:80" or "[::1]:80" (port 0 to 65535, decimal, nothing before or after) -> 0 or -EINVAL.
 */
int evpt_addr_parse(struct evpt_addr *ret_addr, const char *text);
/* A filesystem socket path; -ENAMETOOLONG where it does not fit. */
int evpt_addr_local(struct evpt_addr *ret_addr, const char *path);
#define EVPT_ADDR_TEXT_SIZE 128
/* The inverse of the two above, into at most `size` bytes; returns `text`. */
const char *evpt_addr_format(const struct evpt_addr *addr, char *text, size_t size);
bool evpt_addr_is_loopback(const struct evpt_addr *addr); /* local sockets count as loopback */
uint16_t evpt_addr_port(const struct evpt_addr *addr);    /* 0 for local sockets */

/* ---- sockets ---- */

/* A listening stream socket (SO_REUSEADDR for TCP, mode 0600 for a local path, and a stale socket
 * file that nobody listens on is replaced; a live one gives -EADDRINUSE). */
int evpt_sys_listen(const struct evpt_addr *addr, int backlog);
/* The descriptor of the next connection; TCP_NODELAY is set. -EAGAIN where there is none. */
int evpt_sys_accept(int fd, struct evpt_addr *ret_peer);
/* Starts a connection: returns a descriptor whose writability ends the attempt; TCP_NODELAY set. */
int evpt_sys_connect(const struct evpt_addr *addr);
/* After writability: 0, or the reason why the attempt failed. */
int evpt_sys_connect_result(int fd);
int evpt_sys_local_addr(int fd, struct evpt_addr *ret_addr);
int evpt_sys_peer_addr(int fd, struct evpt_addr *ret_addr);
/* Does the process at the other end of a local socket run as the user of this one, or as root?
 * False where that cannot be said. */
bool evpt_sys_peer_is_own_user(int fd);
/* Two connected stream sockets. */
int evpt_sys_socketpair(int ret_fds[2]);
int evpt_sys_shutdown_write(int fd);
/* One datagram to a local socket: a path, or "@name" for one in the abstract namespace. Waits up to
 * a second for a receiver that is behind. 0 or -errno. */
int evpt_sys_send_datagram(const char *to, const void *bytes, size_t size);
/* SO_SNDBUF in bytes; TCP_NOTSENT_LOWAT in bytes. */
int evpt_sys_set_send_buffer(int fd, int bytes);
int evpt_sys_set_notsent_lowat(int fd, int bytes);
/* TCP_USER_TIMEOUT: a connection whose bytes nobody has acknowledged for so long fails with
 * -ETIMEDOUT, instead of after the system's quarter of an hour. */
int evpt_sys_set_user_timeout(int fd, uint32_t ms);
/* SO_KEEPALIVE: the system asks a peer that has been silent for `ms` (in whole seconds, upwards)
 * again and again at this pace; after `silent_max` of these periods without an answer the connection
 * fails with -ETIMEDOUT. It is the peer's system that answers, however busy the peer is. */
int evpt_sys_set_keepalive(int fd, uint32_t ms, int silent_max);

/* read/readv/writev on any descriptor; sockets never raise SIGPIPE. read: 0 at end of file. */
ssize_t evpt_sys_read(int fd, void *buffer, size_t bytes);
ssize_t evpt_sys_write(int fd, const void *buffer, size_t bytes);
ssize_t evpt_sys_writev(int fd, const struct iovec *vec, int count);
/* Negative descriptors are ignored. */
void evpt_sys_close(int fd);
/* Descriptors open in this process (for tests). */
int evpt_sys_count_fds(void);
/* A descriptor of nothing in particular, to be closed when descriptors run out (listener.c). */
int evpt_sys_reserve_fd(void);

/* ---- waiting ---- */

struct evpt_sys_event {
    uint64_t token;
    uint32_t events; /* EVPT_READ | EVPT_WRITE | EVPT_HANGUP */
};

/* Reported as long as they last; with EVPT_EDGE, which is asked for beside them, each time that
 * they come about anew: an eventfd then reports every signal, read or not. */
enum { EVPT_READ = 1, EVPT_WRITE = 2, EVPT_HANGUP = 4, EVPT_EDGE = 8 };

int evpt_sys_epoll_new(void);
enum evpt_sys_epoll_op { EVPT_EPOLL_ADD, EVPT_EPOLL_CHANGE, EVPT_EPOLL_REMOVE };
int evpt_sys_epoll_set(int epoll, enum evpt_sys_epoll_op op, int fd, uint32_t events,
                       uint64_t token);
/* Waits until an event or `deadline_ns` (monotonic; 0: do not wait; EVPT_FOREVER). A count of
 * events, 0 at the deadline or when a signal came in. */
int evpt_sys_epoll_wait(int epoll, struct evpt_sys_event *events, int max, uint64_t now_ns,
                        uint64_t deadline_ns);

int evpt_sys_eventfd(void);
void evpt_sys_eventfd_signal(int fd);
void evpt_sys_eventfd_clear(int fd);
/* Blocks until the eventfd is signalled or the deadline; clears it. True: it was signalled. */
bool evpt_sys_eventfd_wait(int fd, uint64_t deadline_ns);

/* Blocks the signals of the 0-terminated list in this thread (and those it starts) and returns a
 * descriptor to read them from. */
int evpt_sys_signalfd(const int *signals);
/* The next signal, or 0 where there is none. */
int evpt_sys_signalfd_read(int fd);

/* ---- files ---- */

/* The whole of a regular file, at most `max` bytes (-EFBIG), from evpt_sys_alloc with a 0 behind
 * it. */
int evpt_sys_file_read(const char *path, size_t max, char **ret_text, size_t *ret_size);
/* Replaces a file atomically: temporary file beside it, write, fsync, rename, fsync of the folder.
 * Of a symbolic link, the file that it leads to. */
int evpt_sys_file_replace(const char *path, const void *bytes, size_t size);
/* Opens for appending, makes it with mode 0640. */
int evpt_sys_file_append_open(const char *path);
/* Writes everything, blocking. 0 or -errno. */
int evpt_sys_file_write_all(int fd, const void *bytes, size_t size);
/* The same at the end of a file opened for appending, all or nothing: what a full disk has taken of
 * it is cut off again. */
int evpt_sys_file_append(int fd, const void *bytes, size_t size);
int evpt_sys_file_remove(const char *path);
bool evpt_sys_file_exists(const char *path);
/* Makes the folder that holds `path` (one level), mode 0750; 0 where it is there. */
int evpt_sys_make_parent(const char *path);

#endif
