/* The client of the echo bench, the same for every server; nothing but epoll. See echo.h.
 *
 *     echo-client SERVER-PID PORT CONNECTIONS WINDOW SIZE FRAMES
 *
 * Prints ns for each frame, and ns of the server's CPU time, from the first one sent to the last
 * one answered: connecting is over by then.
 */
#include "echo.h"
#include <sys/epoll.h>

struct connection {
    int fd;
    size_t part; /* bytes of a frame that has not come whole */
    long in_flight;
};

struct run {
    struct connection *connections;
    uint8_t *frames;  /* a window of frames, to be sent from */
    uint8_t *scratch; /* what comes back is counted, not looked at */
    size_t frame_size;
    long count, window, to_send, to_come;
    int epoll;
};

/* A window is far smaller than a socket's buffer, so that a send is never cut short. */
static void send_frames(struct run *run, struct connection *connection, long count)
{
    if (count > run->to_send)
        count = run->to_send;
    if (!count)
        return;
    size_t size = (size_t)count * run->frame_size;
    MUST(send(connection->fd, run->frames, size, MSG_NOSIGNAL) == (ssize_t)size);
    run->to_send -= count;
    connection->in_flight += count;
}

static void receive_frames(struct run *run, struct connection *connection)
{
    ssize_t got = recv(connection->fd, run->scratch, ECHO_SCRATCH, 0);
    MUST(got > 0);
    size_t size = connection->part + (size_t)got;
    long count = (long)(size / run->frame_size);
    connection->part = size % run->frame_size;
    MUST(count <= connection->in_flight);
    connection->in_flight -= count;
    run->to_come -= count;
    send_frames(run, connection, count);
}

/* CPU time of another process of this user, to the nanosecond. */
static uint64_t cpu_ns_of(pid_t pid)
{
    clockid_t clock;
    struct timespec time;
    int error = clock_getcpuclockid(pid, &clock);
    MUST(error == 0 && clock_gettime(clock, &time) == 0);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

static int connect_to(uint16_t port)
{
    struct sockaddr_in address = echo_address(port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    MUST(fd >= 0);
    MUST(connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0);
    echo_no_delay(fd);
    return fd;
}

/* Connects, and sends one frame to and fro on each: the server has accepted it then. */
static void open_all(struct run *run, uint16_t port)
{
    for (long i = 0; i < run->count; i++) {
        struct connection *connection = &run->connections[i];
        connection->fd = connect_to(port);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
        MUST(epoll_ctl(run->epoll, EPOLL_CTL_ADD, connection->fd, &event) == 0);
    }
    for (long i = 0; i < run->count; i++) {
        run->to_send = run->to_come = 1;
        send_frames(run, &run->connections[i], 1);
        while (run->to_come)
            receive_frames(run, &run->connections[i]);
    }
}

static void exchange(struct run *run)
{
    struct epoll_event events[256];
    for (long i = 0; i < run->count; i++)
        send_frames(run, &run->connections[i], run->window);
    while (run->to_come) {
        int count = epoll_wait(run->epoll, events, 256, -1);
        MUST(count > 0);
        for (int i = 0; i < count; i++)
            receive_frames(run, events[i].data.ptr);
    }
}

int main(int argc, char **argv)
{
    static const char usage[] = "SERVER-PID PORT CONNECTIONS WINDOW SIZE FRAMES";
    pid_t server = (pid_t)argument(argc, argv, 1, usage);
    uint16_t port = (uint16_t)argument(argc, argv, 2, usage);
    struct run run = {.count = argument(argc, argv, 3, usage),
                      .window = argument(argc, argv, 4, usage),
                      .frame_size = (size_t)argument(argc, argv, 5, usage),
                      .epoll = epoll_create1(EPOLL_CLOEXEC)};
    long frames = argument(argc, argv, 6, usage);
    MUST(run.epoll >= 0);
    MUST(run.frame_size >= ECHO_HEAD && run.frame_size <= ECHO_FRAME_MAX);
    MUST((size_t)run.window * run.frame_size <= ECHO_FRAME_MAX);
    run.connections = must_alloc((size_t)run.count, sizeof(*run.connections));
    run.frames = must_alloc((size_t)run.window, run.frame_size);
    run.scratch = must_alloc(1, ECHO_SCRATCH);
    for (long i = 0; i < run.window; i++) {
        run.frames[(size_t)i * run.frame_size] = (uint8_t)(run.frame_size >> 8);
        run.frames[(size_t)i * run.frame_size + 1] = (uint8_t)run.frame_size;
    }
    open_all(&run, port);

    run.to_send = run.to_come = frames;
    uint64_t server_ns = cpu_ns_of(server), begin_ns = now_ns();
    exchange(&run);
    report("ns", (double)(now_ns() - begin_ns) / (double)frames);
    report("server_ns", (double)(cpu_ns_of(server) - server_ns) / (double)frames);

    for (long i = 0; i < run.count; i++)
        close(run.connections[i].fd);
    free(run.connections);
    free(run.frames);
    free(run.scratch);
    return 0;
}
