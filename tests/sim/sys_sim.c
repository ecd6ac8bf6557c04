/* reactor/sys.h for a simulated machine (machine.h): chance, clock, memory, descriptors, waiting.
 * Sockets are in net.c, threads in fiber.c; files there are none. */
#include "machine_private.h"

#include "reactor/stream.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct machine machine;
struct sim_faults sim_faults;
uint64_t sim_counts[SIM_COUNT_MAX];
bool sim_tracing;

/* ---- chance and the record ---- */

/* splitmix64 */
uint64_t sim_random(void)
{
    uint64_t z = machine.random += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

uint64_t sim_below(uint64_t n)
{
    return n ? sim_random() % n : 0;
}

uint64_t sim_between(uint64_t least, uint64_t most)
{
    return least + sim_below(most - least + 1);
}

bool sim_chance(unsigned of_1000)
{
    return of_1000 && sim_random() % 1000 < of_1000;
}

void sim_note(uint64_t what, uint64_t value)
{
    machine.hash = (machine.hash ^ what) * UINT64_C(0x100000001b3);
    machine.hash = (machine.hash ^ value) * UINT64_C(0x100000001b3);
}

uint64_t sim_hash(void)
{
    return machine.hash;
}

uint64_t sim_seed(void)
{
    return machine.seed;
}

uint64_t sim_now(void)
{
    return machine.now_ns;
}

uint64_t sim_jumped_at(void)
{
    return machine.jumped_ns;
}

static void print_time(FILE *out)
{
    fprintf(out, "%12.6f ", (double)machine.now_ns / 1e9);
}

void sim_trace(const char *format, ...)
{
    if (!sim_tracing)
        return;
    va_list args;
    va_start(args, format);
    print_time(stdout);
    vprintf(format, args);
    putchar('\n');
    va_end(args);
}

void sim_fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fflush(stdout);
    fprintf(stderr, "seed %llu failed at ", (unsigned long long)machine.seed);
    print_time(stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(1);
}

/* ---- clock ---- */

uint64_t evpt_sys_now_ns(void)
{
    machine.now_ns += 50;
    sim_maybe_yield();
    return machine.now_ns;
}

int64_t evpt_sys_wall_ns(void)
{
    return INT64_C(1800000000) * (int64_t)EVPT_NS_PER_S + (int64_t)machine.now_ns;
}

uint64_t evpt_sys_thread_cpu_ns(void)
{
    return machine.now_ns;
}

int evpt_sys_cpu_count(void)
{
    return 2;
}

void evpt_sys_process(struct evpt_sys_process *ret_process)
{
    *ret_process = (struct evpt_sys_process){.fds = machine.process->fd_count};
}

void evpt_sys_random(void *buffer, size_t bytes)
{
    for (uint8_t *at = buffer; bytes; bytes--)
        *at++ = (uint8_t)sim_random();
}

/* ---- memory ---- */

static bool refuse_memory(void)
{
    if (!machine.process->memory_faults || !sim_chance(sim_faults.no_memory))
        return false;
    sim_counts[SIM_allocations_failed]++;
    return true;
}

static void adopt_block(struct block *block, struct sim_process *process, size_t bytes)
{
    block->process = process;
    block->size = bytes;
    evpt_list_push_back(&process->blocks, &block->link);
    process->block_count++;
}

void *evpt_sys_alloc(size_t bytes)
{
    struct block *block = refuse_memory() ? NULL : malloc(sizeof(*block) + bytes);
    if (!block)
        return NULL;
    *block = (struct block){0};
    adopt_block(block, machine.process, bytes);
    /* What nobody has written is the same in each run, and of no use. */
    memset(block + 1, 0xa5, bytes < 4096 ? bytes : 4096);
    return block + 1;
}

void *evpt_sys_zalloc(size_t bytes)
{
    struct block *block = refuse_memory() ? NULL : calloc(1, sizeof(*block) + bytes);
    if (!block)
        return NULL;
    adopt_block(block, machine.process, bytes);
    return block + 1;
}

void evpt_sys_free(void *memory)
{
    if (!memory)
        return;
    struct block *block = (struct block *)memory - 1;
    if (block->process != machine.process)
        sim_fail("memory of %s is freed by %s", block->process->name, machine.process->name);
    evpt_list_remove(&block->link);
    block->process->block_count--;
    free(block);
}

void *evpt_sys_realloc(void *old, size_t bytes)
{
    void *new = evpt_sys_alloc(bytes);
    if (!new || !old)
        return new;
    size_t kept = ((struct block *)old - 1)->size;
    memcpy(new, old, kept < bytes ? kept : bytes);
    evpt_sys_free(old);
    return new;
}

/* ---- addresses: IPv4 alone ---- */

void sim_address(unsigned host, struct evpt_addr *ret_addr)
{
    struct evpt_addr addr = {.size = sizeof(addr.u.v4)};
    addr.u.v4.sin_family = AF_INET;
    addr.u.v4.sin_port = htons(SIM_PORT);
    addr.u.v4.sin_addr.s_addr = htonl(0x0a000001 + host);
    *ret_addr = addr;
}

int evpt_addr_parse(struct evpt_addr *ret_addr, const char *text)
{
    (void)ret_addr, (void)text;
    return -EINVAL;
}

int evpt_addr_local(struct evpt_addr *ret_addr, const char *path)
{
    (void)ret_addr, (void)path;
    return -EINVAL;
}

const char *evpt_addr_format(const struct evpt_addr *addr, char *text, size_t size)
{
    uint32_t ip = ntohl(addr->u.v4.sin_addr.s_addr);
    if (addr->size)
        snprintf(text, size, "%u.%u.%u.%u:%u", ip >> 24, ip >> 16 & 255, ip >> 8 & 255, ip & 255,
                 ntohs(addr->u.v4.sin_port));
    else
        snprintf(text, size, "none");
    return text;
}

bool evpt_addr_is_loopback(const struct evpt_addr *addr)
{
    (void)addr;
    return false;
}

uint16_t evpt_addr_port(const struct evpt_addr *addr)
{
    return addr->size ? ntohs(addr->u.v4.sin_port) : 0;
}

/* ---- descriptors ---- */

int sim_add_fd(struct file *file)
{
    struct sim_process *process = machine.process;
    for (int fd = FD_FIRST; fd < FD_MAX; fd++) {
        if (process->fds[fd])
            continue;
        uint64_t bit = UINT64_C(1) << (fd % 64);
        sim_counts[SIM_fd_reused] += (process->used_fds[fd / 64] & bit) != 0;
        process->used_fds[fd / 64] |= bit;
        process->fds[fd] = file;
        process->fd_count++;
        file->process = process;
        return fd;
    }
    return -EMFILE;
}

static int new_file(enum file_kind kind)
{
    struct file *file = calloc(1, sizeof(*file));
    assert(file);
    file->kind = kind;
    int fd = sim_add_fd(file);
    if (fd < 0)
        free(file);
    return fd;
}

struct file *sim_file(int fd)
{
    struct file *file = fd >= FD_FIRST && fd < FD_MAX ? machine.process->fds[fd] : NULL;
    if (!file)
        sim_fail("%s uses descriptor %d, which is not open", machine.process->name, fd);
    return file;
}

static void close_file(struct sim_process *process, int fd, bool silent)
{
    struct file *file = process->fds[fd];
    process->fds[fd] = NULL;
    process->fd_count--;
    if (file->kind == FILE_SOCKET)
        sim_socket_close(file, silent);
    else if (file->kind == FILE_LISTENER)
        sim_listener_close(file, silent);
    free(file->interests);
    free(file);
}

/* The kernel forgets a descriptor that is closed; a loop that did not stop its watcher before has
 * made a mistake, though. */
static void check_not_watched(int fd)
{
    for (int i = FD_FIRST; i < FD_MAX; i++) {
        const struct file *epoll = machine.process->fds[i];
        for (unsigned k = 0; epoll && k < epoll->interest_count; k++) {
            if (epoll->interests[k].fd == fd)
                sim_fail("%s closes descriptor %d and still watches it", machine.process->name, fd);
        }
    }
}

void evpt_sys_close(int fd)
{
    if (fd < 0)
        return;
    (void)sim_file(fd);
    check_not_watched(fd);
    close_file(machine.process, fd, false);
    machine.process->dirty = true;
}

/* Its processes never grow. */
uint64_t evpt_sys_process_cpu_ns(void)
{
    return 0;
}

size_t evpt_sys_resident(void)
{
    return 0;
}

void evpt_sys_give_back(void)
{
}

int evpt_sys_count_fds(void)
{
    return (int)machine.process->fd_count;
}

int evpt_sys_reserve_fd(void)
{
    return new_file(FILE_NOTHING);
}

/* Turns that the loop which watches the descriptor has had; 0: nobody watches it. */
static uint64_t turn_of(int fd)
{
    for (int i = FD_FIRST; i < FD_MAX; i++) {
        const struct file *epoll = machine.process->fds[i];
        for (unsigned k = 0; epoll && k < epoll->interest_count; k++) {
            if (epoll->interests[k].fd == fd)
                return epoll->waits;
        }
    }
    return 0;
}

/* No connection may take more of a turn than its share: stream.h's bounds, and a flush amid the
 * callbacks beside the one at the end. */
static struct file *count_use(int fd, bool is_write)
{
    struct file *file = sim_file(fd);
    uint64_t turn = turn_of(fd);
    if (turn != file->turn)
        file->reads = file->writes = 0;
    file->turn = turn;
    file->reads += !is_write;
    file->writes += is_write;
    if (file->reads > EVPT_STREAM_READS_MAX || file->writes > 2 * EVPT_STREAM_WRITES_MAX)
        sim_fail("%s reads %u times from one connection in a turn, and writes %u times to it",
                 machine.process->name, file->reads, file->writes);
    return file;
}

ssize_t evpt_sys_read(int fd, void *buffer, size_t bytes)
{
    return sim_socket_read(count_use(fd, false), buffer, bytes);
}

ssize_t evpt_sys_write(int fd, const void *buffer, size_t bytes)
{
    struct iovec vec = {(void *)buffer, bytes};
    return evpt_sys_writev(fd, &vec, 1);
}

ssize_t evpt_sys_writev(int fd, const struct iovec *vec, int count)
{
    return sim_socket_write(count_use(fd, true), vec, count);
}

int evpt_sys_send_datagram(const char *to, const void *bytes, size_t size)
{
    (void)to, (void)bytes, (void)size;
    return -ENOENT;
}

/* ---- waiting ---- */

int evpt_sys_epoll_new(void)
{
    return new_file(FILE_EPOLL);
}

static struct interest *find_interest(struct file *epoll, int fd)
{
    for (unsigned i = 0; i < epoll->interest_count; i++) {
        if (epoll->interests[i].fd == fd)
            return &epoll->interests[i];
    }
    return NULL;
}

int evpt_sys_epoll_set(int epoll_fd, enum evpt_sys_epoll_op op, int fd, uint32_t events,
                       uint64_t token)
{
    struct file *epoll = sim_file(epoll_fd);
    (void)sim_file(fd);
    struct interest *interest = find_interest(epoll, fd);
    machine.process->dirty = true;
    if (op == EVPT_EPOLL_ADD) {
        if (interest)
            return -EEXIST;
        if (refuse_memory())
            return -ENOMEM;
        if (epoll->interest_count == epoll->interest_room) {
            epoll->interest_room = epoll->interest_room ? epoll->interest_room * 2 : 16;
            epoll->interests =
                realloc(epoll->interests, epoll->interest_room * sizeof(*epoll->interests));
            assert(epoll->interests);
        }
        epoll->interests[epoll->interest_count++] = (struct interest){fd, events, token};
        return 0;
    }
    if (!interest)
        return -ENOENT;
    if (op == EVPT_EPOLL_CHANGE)
        *interest = (struct interest){fd, events, token};
    else
        *interest = epoll->interests[--epoll->interest_count];
    return 0;
}

static uint32_t events_of(const struct file *file)
{
    switch (file->kind) {
    case FILE_EVENTFD:
        return file->signals ? EVPT_READ : 0;
    case FILE_LISTENER:
        return file->waiting ? EVPT_READ : 0;
    case FILE_SOCKET:
        return sim_socket_events(file);
    default:
        return 0;
    }
}

static uint32_t pending(const struct file *epoll, const struct interest *interest)
{
    return events_of(epoll->process->fds[interest->fd]) & (interest->events | EVPT_HANGUP);
}

bool sim_is_ready(struct file *file)
{
    if (file->kind != FILE_EPOLL)
        return events_of(file) != 0;
    for (unsigned i = 0; i < file->interest_count; i++) {
        if (pending(file, &file->interests[i]))
            return true;
    }
    return false;
}

static void shuffle(struct evpt_sys_event *events, int count)
{
    for (int i = count - 1; i > 0; i--) {
        int k = (int)sim_below((uint64_t)i + 1);
        struct evpt_sys_event kept = events[i];
        events[i] = events[k];
        events[k] = kept;
    }
    sim_counts[SIM_shuffled_batches] += count > 1;
}

/* An eventfd that is watched with EVPT_EDGE is done with when it was reported. */
static void pass_edges(const struct file *epoll, const struct evpt_sys_event *events, int count)
{
    for (int i = 0; i < count; i++) {
        for (unsigned k = 0; k < epoll->interest_count; k++) {
            const struct interest *interest = &epoll->interests[k];
            if (interest->token == events[i].token && interest->events & EVPT_EDGE)
                epoll->process->fds[interest->fd]->signals = 0;
        }
    }
}

int evpt_sys_epoll_wait(int epoll_fd, struct evpt_sys_event *events, int max, uint64_t now_ns,
                        uint64_t deadline_ns)
{
    struct file *epoll = sim_file(epoll_fd);
    (void)now_ns;
    epoll->waits++;
    sim_block(epoll, deadline_ns);
    int count = 0;
    for (unsigned i = 0; i < epoll->interest_count && count < max; i++) {
        uint32_t ready = pending(epoll, &epoll->interests[i]);
        if (ready)
            events[count++] = (struct evpt_sys_event){epoll->interests[i].token, ready};
    }
    if (sim_chance(sim_faults.shuffle)) {
        shuffle(events, count);
        if (count > 1 && sim_chance(200)) {
            sim_counts[SIM_cut_batches]++;
            count = (int)sim_between(1, (uint64_t)count);
        }
    }
    pass_edges(epoll, events, count);
    return count;
}

int evpt_sys_eventfd(void)
{
    return new_file(FILE_EVENTFD);
}

void evpt_sys_eventfd_signal(int fd)
{
    sim_file(fd)->signals++;
    machine.process->dirty = true;
}

void evpt_sys_eventfd_clear(int fd)
{
    sim_file(fd)->signals = 0;
}

bool evpt_sys_eventfd_wait(int fd, uint64_t deadline_ns)
{
    struct file *file = sim_file(fd);
    sim_block(file, deadline_ns);
    bool signalled = file->signals != 0;
    file->signals = 0;
    return signalled;
}

int evpt_sys_signalfd(const int *signals)
{
    (void)signals;
    return -ENOSYS;
}

int evpt_sys_signalfd_read(int fd)
{
    (void)fd;
    return 0;
}

/* ---- files: only the log's standard error ---- */

int evpt_sys_file_read(const char *path, size_t max, char **ret_text, size_t *ret_size)
{
    (void)path, (void)max, (void)ret_text, (void)ret_size;
    return -ENOENT;
}

int evpt_sys_file_replace(const char *path, const void *bytes, size_t size)
{
    (void)path, (void)bytes, (void)size;
    return -EROFS;
}

int evpt_sys_file_append_open(const char *path)
{
    (void)path;
    return -EROFS;
}

int evpt_sys_file_write_all(int fd, const void *bytes, size_t size)
{
    assert(fd == 2);
    if (size && ((const char *)bytes)[size - 1] == '\n')
        size--;
    sim_trace("%s log: %.*s", machine.process->name, (int)size, (const char *)bytes);
    return 0;
}

int evpt_sys_file_append(int fd, const void *bytes, size_t size)
{
    return evpt_sys_file_write_all(fd, bytes, size);
}

int evpt_sys_file_remove(const char *path)
{
    (void)path;
    return -ENOENT;
}

bool evpt_sys_file_exists(const char *path)
{
    (void)path;
    return false;
}

int evpt_sys_make_parent(const char *path)
{
    (void)path;
    return -EROFS;
}

/* ---- processes ---- */

void sim_take_apart(struct sim_process *process, bool orderly, bool silent)
{
    if (orderly && process->fd_count)
        sim_fail("%s ended and left %u descriptors open", process->name, process->fd_count);
    if (orderly && process->block_count)
        sim_fail("%s ended and left %zu allocations, the first of %zu bytes", process->name,
                 process->block_count,
                 EVPT_CONTAINER_OF(process->blocks.next, struct block, link)->size);
    if (orderly && !evpt_list_is_empty(&process->fibers))
        sim_fail("%s ended and left a thread running", process->name);
    process->ended = true;
    sim_fibers_drop(process);
    for (int fd = 0; fd < FD_MAX; fd++) {
        if (process->fds[fd])
            close_file(process, fd, silent);
    }
    struct evpt_list *link;
    while ((link = evpt_list_pop_front(&process->blocks)))
        free(EVPT_CONTAINER_OF(link, struct block, link));
}

bool sim_has_ended(const struct sim_process *process)
{
    return process->ended;
}

void sim_kill(struct sim_process *process, bool power_loss)
{
    if (process->ended)
        return;
    if (power_loss)
        machine.down[process->host] = true;
    sim_take_apart(process, false, power_loss);
}

void sim_power_on(unsigned host)
{
    machine.down[host] = false;
}

void sim_freeze(struct sim_process *process, uint64_t until_ns)
{
    if (process->frozen_until_ns < until_ns)
        process->frozen_until_ns = until_ns;
}

uint64_t sim_thawed_at(const struct sim_process *process)
{
    return process->frozen_until_ns;
}

void sim_allow_memory_faults(struct sim_process *process, bool allowed)
{
    process->memory_faults = allowed;
}

void sim_signal(struct sim_process *process, sim_event_fn fn, void *user)
{
    if (process->ended)
        return;
    struct sim_process *kept = machine.process;
    machine.process = process;
    fn(user);
    machine.process = kept;
}

void sim_init(uint64_t seed)
{
    machine = (struct machine){.seed = seed, .random = seed, .now_ns = EVPT_NS_PER_S};
    machine.outside.name = "outside";
    evpt_list_init(&machine.outside.blocks);
    machine.process = &machine.outside;
    sim_faults = (struct sim_faults){.switch_us = 5, .latency_us = 100, .window = 65536};
    sim_fibers_init();
}

void sim_fini(void)
{
    while (machine.processes) {
        struct sim_process *process = machine.processes;
        machine.processes = process->next;
        if (!process->ended)
            sim_take_apart(process, false, true);
        free(process);
    }
    if (machine.outside.block_count)
        sim_fail("%zu allocations made from outside are left", machine.outside.block_count);
    sim_net_fini();
}
