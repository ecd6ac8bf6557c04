/* What the echo servers (echo_*.c) and their client share: frames, start, end.
 *
 * Workload: framed TCP echo. echo_client.c opens C connections and keeps W frames of S bytes in
 * flight on each until N were answered, then closes. A frame is its length (2 bytes, big-endian,
 * these included) and bytes. The server answers each frame by itself with the same frame, and ends
 * with the last connection. Each server is written as a good program on its library is: one read
 * for what has come, the answers of a read (evpt: of a turn) leave together.
 *
 * The client measures both: the time, and the server's CPU time, from when all are connected.
 */
#ifndef EVPT_BENCH_ECHO_H
#define EVPT_BENCH_ECHO_H

#include "bench.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    ECHO_HEAD = 2,
    ECHO_FRAME_MAX = 65535,
    ECHO_BACKLOG = 1024,
    ECHO_SCRATCH = 256 * 1024 /* one read's worth, the same for all that choose it themselves */
};

struct echo_server {
    long connections, frames;
};

/* Size of the frame at `bytes`, or 0 where it is not whole yet. */
static inline size_t echo_frame_size(const uint8_t *bytes, size_t size)
{
    if (size < ECHO_HEAD)
        return 0;
    size_t frame = (size_t)bytes[0] << 8 | bytes[1];
    MUST(frame >= ECHO_HEAD);
    return frame <= size ? frame : 0;
}

static inline struct sockaddr_in echo_address(uint16_t port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

/* For the servers whose library accepts by itself or not at all: a descriptor that listens. */
static inline int echo_listen(void)
{
    struct sockaddr_in address = echo_address(0);
    int one = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    MUST(fd >= 0);
    MUST(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) == 0);
    MUST(bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0);
    MUST(listen(fd, ECHO_BACKLOG) == 0);
    return fd;
}

static inline void echo_print_port(const struct sockaddr_in *address)
{
    printf("port %u\n", ntohs(address->sin_port));
    fflush(stdout);
}

static inline void echo_print_port_of(int fd)
{
    struct sockaddr_in address;
    socklen_t size = sizeof(address);
    MUST(getsockname(fd, (struct sockaddr *)&address, &size) == 0);
    echo_print_port(&address);
}

static inline void echo_no_delay(int fd)
{
    int one = 1;
    MUST(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) == 0);
}

/* What the runner holds against what the client was answered. */
static inline void echo_report(const struct echo_server *server)
{
    report("frames", (double)server->frames);
}

#endif
