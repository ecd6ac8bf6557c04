/* The floor under long messages, for tools/bench/large: an echo over one loopback connection that
 * copies every byte into user space and out again at both ends, and does nothing else.
 *
 *     bench-copy-bare SIZE IN_FLIGHT SECONDS
 *
 * Workload: IN_FLIGHT messages of SIZE bytes are on their way; for each that has come back whole,
 * another one is sent. The server is a process of its own; both ends read and write in pieces of
 * 256 KiB, from a buffer that stays in the cache. Half a second of warm-up. Prints
 * "BYTES_PER_SECOND CPU_NS_PER_MESSAGE": bytes in both directions, processor time of both ends.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PIECE = 256 * 1024 };

static const uint64_t second_ns = 1000000000;
static uint8_t piece[PIECE]; /* what is sent, and where goes what comes: nobody looks at it */

static void die(const char *what)
{
    fprintf(stderr, "bench-copy-bare: %s: %s\n", what, strerror(errno));
    exit(EXIT_FAILURE);
}

static uint64_t read_clock(clockid_t clock)
{
    struct timespec time;
    if (clock_gettime(clock, &time) != 0)
        die("clock_gettime");
    return (uint64_t)time.tv_sec * second_ns + (uint64_t)time.tv_nsec;
}

static size_t at_most_a_piece(uint64_t size)
{
    return size < PIECE ? (size_t)size : PIECE;
}

/* Blocks in each call: whoever is at the other end never stops reading. */
static void serve(int listener)
{
    int fd = accept(listener, NULL, NULL);
    if (fd < 0)
        die("accept");
    for (ssize_t size; (size = read(fd, piece, PIECE)) > 0;) {
        for (ssize_t at = 0, sent; at < size; at += sent) {
            sent = send(fd, piece + at, (size_t)(size - at), MSG_NOSIGNAL);
            if (sent < 0)
                exit(EXIT_SUCCESS); /* the client has what it wanted */
        }
    }
    exit(EXIT_SUCCESS);
}

static int start_server(pid_t *ret_pid)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(addr);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&addr, size) != 0 ||
        listen(listener, 1) != 0 || getsockname(listener, (struct sockaddr *)&addr, &size) != 0)
        die("listen");
    *ret_pid = fork();
    if (*ret_pid < 0)
        die("fork");
    if (*ret_pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        serve(listener);
    }
    close(listener);
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&addr, size) != 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) != 0 ||
        fcntl(fd, F_SETFL, O_NONBLOCK) != 0)
        die("connect");
    return fd;
}

struct load {
    int fd;
    uint64_t size;    /* of a message */
    uint64_t to_send; /* bytes */
    uint64_t part;    /* bytes of a message that has not come whole */
};

static ssize_t check(ssize_t moved, const char *what)
{
    if (moved < 0 && errno != EAGAIN)
        die(what);
    return moved > 0 ? moved : 0;
}

/* Keeps the messages going for that long; bytes that went and came. */
static uint64_t run(struct load *load, uint64_t duration_ns)
{
    uint64_t bytes = 0, end_ns = read_clock(CLOCK_MONOTONIC) + duration_ns;
    while (read_clock(CLOCK_MONOTONIC) < end_ns) {
        struct pollfd wanted = {.fd = load->fd,
                                .events = (short)(POLLIN | (load->to_send ? POLLOUT : 0))};
        if (poll(&wanted, 1, -1) < 0)
            die("poll");
        if (wanted.revents & POLLOUT) {
            ssize_t sent =
                check(send(load->fd, piece, at_most_a_piece(load->to_send), MSG_NOSIGNAL), "send");
            load->to_send -= (uint64_t)sent;
            bytes += (uint64_t)sent;
        }
        if (wanted.revents & (POLLIN | POLLHUP)) {
            ssize_t got = check(read(load->fd, piece, PIECE), "read");
            load->part += (uint64_t)got;
            load->to_send += load->part / load->size * load->size;
            load->part %= load->size;
            bytes += (uint64_t)got;
        }
    }
    return bytes;
}

int main(int argc, char **argv)
{
    uint64_t size = argc == 4 ? strtoull(argv[1], NULL, 10) : 0;
    uint64_t in_flight = argc == 4 ? strtoull(argv[2], NULL, 10) : 0;
    double seconds = argc == 4 ? atof(argv[3]) : 0;
    if (!size || !in_flight || seconds <= 0) {
        fputs("usage: bench-copy-bare SIZE IN_FLIGHT SECONDS\n", stderr);
        return 2;
    }
    pid_t server;
    clockid_t server_clock;
    struct load load = {.fd = start_server(&server), .size = size, .to_send = size * in_flight};
    if (clock_getcpuclockid(server, &server_clock) != 0)
        die("clock_getcpuclockid");
    (void)run(&load, second_ns / 2);
    uint64_t cpu_ns = read_clock(CLOCK_PROCESS_CPUTIME_ID) + read_clock(server_clock);
    uint64_t begin_ns = read_clock(CLOCK_MONOTONIC);
    uint64_t bytes = run(&load, (uint64_t)(seconds * (double)second_ns));
    double taken_ns = (double)(read_clock(CLOCK_MONOTONIC) - begin_ns);
    cpu_ns = read_clock(CLOCK_PROCESS_CPUTIME_ID) + read_clock(server_clock) - cpu_ns;
    close(load.fd);
    (void)waitpid(server, NULL, 0);
    double messages = (double)bytes / 2 / (double)size;
    printf("%.0f %.0f\n", (double)bytes * (double)second_ns / taken_ns, (double)cpu_ns / messages);
    return 0;
}
