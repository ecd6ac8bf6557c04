/* The floor under everything in tools/bench/peers: an echo of 64 bytes over loopback TCP with epoll
 * at both ends, one process each, and nothing else: no framing, no decoding, no script.
 *
 *     echo_bare IN_FLIGHT SECONDS
 *
 * Workload: one connection, IN_FLIGHT messages of 64 bytes on it at a time; whatever comes back is
 * sent again. Half a second of warm-up. Prints "MESSAGES_PER_SECOND P50_NS" (of a round trip of
 * everything that is in flight), and its parameters to stderr.
 */
#include "tools/evpt_bench/histogram.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MESSAGE = 64, IN_FLIGHT_MAX = 1024, BUFFER = MESSAGE * IN_FLIGHT_MAX };

static const uint64_t second_ns = 1000000000;

static void die(const char *what)
{
    fprintf(stderr, "echo_bare: %s: %s\n", what, strerror(errno));
    exit(EXIT_FAILURE);
}

static uint64_t now_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * second_ns + (uint64_t)time.tv_nsec;
}

/* What is in flight is far below what a socket holds, so a short write is a fault here. */
static void write_all(int fd, const char *bytes, size_t size)
{
    if (write(fd, bytes, size) != (ssize_t)size)
        die("write");
}

static int watch(int fd)
{
    struct epoll_event event = {.events = EPOLLIN};
    int on = 1, epoll = epoll_create1(EPOLL_CLOEXEC);
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) != 0 || epoll < 0 ||
        epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0)
        die("epoll");
    return epoll;
}

/* Waits, then reads what is there; 0 at the end. */
static size_t next(int epoll, int fd, char buffer[BUFFER])
{
    struct epoll_event event;
    while (epoll_wait(epoll, &event, 1, -1) < 0) {
        if (errno != EINTR)
            die("epoll_wait");
    }
    ssize_t size = read(fd, buffer, BUFFER);
    if (size < 0)
        die("read");
    return (size_t)size;
}

static void serve(int listener)
{
    char buffer[BUFFER];
    int fd = accept(listener, NULL, NULL);
    if (fd < 0)
        die("accept");
    int epoll = watch(fd);
    for (size_t size; (size = next(epoll, fd, buffer)) > 0;)
        write_all(fd, buffer, size);
    exit(EXIT_SUCCESS);
}

/* Keeps the messages going for that long; how many came back. */
static uint64_t load(int epoll, int fd, uint64_t duration_ns, struct bench_histogram *round_trips)
{
    static char buffer[BUFFER];
    uint64_t bytes = 0, last_ns = now_ns(), end_ns = last_ns + duration_ns;
    while (last_ns < end_ns) {
        size_t size = next(epoll, fd, buffer);
        if (size == 0)
            die("the server has gone");
        write_all(fd, buffer, size);
        bytes += size;
        uint64_t at_ns = now_ns();
        bench_histogram_record(round_trips, at_ns - last_ns);
        last_ns = at_ns;
    }
    return bytes / MESSAGE;
}

static int start_server(struct sockaddr_in *addr, pid_t *ret_pid)
{
    socklen_t size = sizeof(*addr);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)addr, size) != 0 ||
        listen(listener, 1) != 0 || getsockname(listener, (struct sockaddr *)addr, &size) != 0)
        die("listen");
    *ret_pid = fork();
    if (*ret_pid < 0)
        die("fork");
    if (*ret_pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        serve(listener);
    }
    close(listener);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)addr, size) != 0)
        die("connect");
    return fd;
}

int main(int argc, char **argv)
{
    static const char messages[BUFFER];
    static struct bench_histogram warm_up, round_trips;
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int in_flight = argc == 3 ? atoi(argv[1]) : 0;
    double seconds = argc == 3 ? atof(argv[2]) : 0;
    if (in_flight < 1 || in_flight > IN_FLIGHT_MAX || seconds <= 0) {
        fputs("usage: echo_bare IN_FLIGHT SECONDS\n", stderr);
        return 2;
    }
    pid_t server;
    signal(SIGPIPE, SIG_IGN);
    int fd = start_server(&addr, &server);
    int epoll = watch(fd);
    write_all(fd, messages, (size_t)in_flight * MESSAGE);
    (void)load(epoll, fd, second_ns / 2, &warm_up);
    uint64_t begin_ns = now_ns();
    uint64_t count = load(epoll, fd, (uint64_t)(seconds * 1e9), &round_trips);
    double taken = (double)(now_ns() - begin_ns) / 1e9;
    close(fd);
    waitpid(server, NULL, 0);
    fprintf(stderr, "echo_bare: %d in flight, %d bytes, %.2f s\n", in_flight, MESSAGE, taken);
    printf("%.0f %" PRIu64 "\n", (double)count / taken,
           bench_histogram_quantile(&round_trips, 0.5, 0));
    return 0;
}
