/* What sys_sim.c, fiber.c and net.c share. */
#ifndef EVPT_TESTS_SIM_MACHINE_PRIVATE_H
#define EVPT_TESTS_SIM_MACHINE_PRIVATE_H

#include "machine.h"
#include "reactor/list.h"

#define FD_FIRST 3
#define FD_MAX 256

struct fiber;
struct connection;

enum file_kind { FILE_EPOLL, FILE_EVENTFD, FILE_LISTENER, FILE_SOCKET, FILE_NOTHING };

struct interest {
    int fd;
    uint32_t events;
    uint64_t token;
};

struct file {
    enum file_kind kind;
    struct sim_process *process;
    struct interest *interests; /* epoll */
    unsigned interest_count, interest_room;
    uint64_t waits;                /* epoll: turns of its loop */
    uint64_t signals;              /* eventfd */
    struct connection *connection; /* socket */
    int side;
    uint64_t turn;              /* socket: the turn of its loop in which it was used last, */
    unsigned reads, writes;     /* and how often */
    struct connection *waiting; /* listener: the accept queue, linked by next_waiting */
    unsigned host;
};

/* In front of each allocation. */
struct block {
    struct evpt_list link;
    struct sim_process *process;
    size_t size;
};

struct sim_process {
    struct sim_process *next;
    unsigned host;
    const char *name;
    struct evpt_list blocks, fibers;
    size_t block_count;
    struct file *fds[FD_MAX];
    unsigned fd_count;
    uint64_t used_fds[FD_MAX / 64]; /* numbers that were in use before */
    uint64_t frozen_until_ns;
    uint64_t check_at_ns; /* the earliest deadline of its waiting fibers */
    bool dirty;           /* something has changed that one of them may wait for */
    bool ended, memory_faults;
};

struct machine {
    uint64_t seed, random, hash, now_ns, jumped_ns;
    struct sim_process *processes, *process; /* all; whose fiber runs */
    struct sim_process outside;              /* who allocates between two steps */
    struct fiber *fiber;
    struct connection *connections;
    bool cut[SIM_HOSTS_MAX][SIM_HOSTS_MAX], down[SIM_HOSTS_MAX];
};
extern struct machine machine;

/* fiber.c */
void sim_fibers_init(void);
/* Lets others run until `file` is ready (epoll, eventfd) or the deadline has come. */
void sim_block(struct file *file, uint64_t deadline_ns);
/* Lets others run, by chance. */
void sim_maybe_yield(void);
void sim_fibers_drop(struct sim_process *process);

/* sys_sim.c */
bool sim_is_ready(struct file *file);
int sim_add_fd(struct file *file);
struct file *sim_file(int fd);
/* The process ends: everything is closed, and what it had allocated freed. `orderly`: there must be
 * none of either. */
void sim_take_apart(struct sim_process *process, bool orderly, bool silent);

/* net.c */
void sim_net_fini(void);
uint32_t sim_socket_events(const struct file *file);
ssize_t sim_socket_read(struct file *file, void *buffer, size_t size);
ssize_t sim_socket_write(struct file *file, const struct iovec *vec, int count);
void sim_socket_close(struct file *file, bool silent);
void sim_listener_close(struct file *file, bool silent);

#endif
