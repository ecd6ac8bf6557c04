/* Workload: N pipes, M of them active, W writes (the shape of libevent's bench.c).
 *
 *     pipes-LIBRARY N M W
 *
 * Every pipe is watched for reading, all the time, as a server's connections are. M pipes, evenly
 * spread, get a byte to begin with; whoever gets a byte reads it and writes one to the next pipe,
 * until W bytes were written. So M descriptors are ready at any moment, and they wander. Printed:
 * ns of CPU time for each byte read, from the first one to the last.
 */
#include ADAPTER
#include <sys/resource.h>
#include <unistd.h>

struct run;

struct watched_pipe {
    struct lib_io io;
    struct run *run;
    struct watched_pipe *next;
    int read_fd, write_fd;
};

struct run {
    struct lib_loop loop;
    long to_write, to_read;
};

static inline void write_byte(const struct watched_pipe *pipe)
{
    pipe->run->to_write--;
    MUST(write(pipe->write_fd, "e", 1) == 1);
}

LIB_ON_IO(on_readable, io)
{
    struct watched_pipe *pipe = CONTAINER_OF(io, struct watched_pipe, io);
    struct run *run = pipe->run;
    char byte;
    MUST(read(pipe->read_fd, &byte, 1) == 1);
    if (run->to_write)
        write_byte(pipe->next);
    if (!--run->to_read)
        lib_break(&run->loop);
}

static void allow_descriptors(rlim_t count)
{
    struct rlimit limit;
    MUST(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    if (limit.rlim_cur < count)
        limit.rlim_cur = count;
    if (limit.rlim_max < count)
        limit.rlim_max = count;
    MUST(setrlimit(RLIMIT_NOFILE, &limit) == 0);
}

int main(int argc, char **argv)
{
    static const char usage[] = "PIPES ACTIVE WRITES";
    long count = argument(argc, argv, 1, usage), active = argument(argc, argv, 2, usage);
    struct run run = {.to_write = argument(argc, argv, 3, usage)};
    MUST(active <= count && active <= run.to_write);
    allow_descriptors((rlim_t)count * 2 + 64);
    lib_loop_init(&run.loop);
    struct watched_pipe *pipes = must_alloc((size_t)count, sizeof(*pipes));
    for (long i = 0; i < count; i++) {
        int fds[2];
        MUST(pipe(fds) == 0);
        pipes[i].run = &run;
        pipes[i].next = &pipes[(i + 1) % count];
        pipes[i].read_fd = fds[0];
        pipes[i].write_fd = fds[1];
        lib_io_start(&run.loop, &pipes[i].io, fds[0], on_readable);
    }

    long total = run.to_read = run.to_write;
    uint64_t begin_ns = cpu_ns();
    for (long i = 0; i < active; i++)
        write_byte(&pipes[i * (count / active)]);
    lib_run(&run.loop);
    report_library(lib_version());
    report("ns", (double)(cpu_ns() - begin_ns) / (double)total);

    for (long i = 0; i < count; i++)
        lib_io_stop(&run.loop, &pipes[i].io);
    lib_loop_fini(&run.loop);
    free(pipes);
    return 0;
}
