/* The simulated network: TCP as the two ends see it.
 *
 * A connection is two halves, one for each direction. What is written lies in flight as segments,
 * each with the time of its arrival, then in the inbox of the other end until that reads it; the
 * two together are bounded by the window. Segments arrive in order; where the link is cut they
 * wait, as a kernel would send them again and again, except for resets, which are not repeated.
 * What arrives at an end that is closed is answered with a reset, which may overtake (and so lose)
 * bytes.
 *
 * Connections are freed with the machine: events may still refer to them.
 */
#include "machine_private.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define RETRY_NS (200 * EVPT_NS_PER_MS)
#define BACKLOG_MAX 128

enum segment_kind { DATA, FIN, RST };

struct segment {
    struct segment *next;
    enum segment_kind kind;
    uint64_t due_ns;
    size_t at, size;
    uint8_t bytes[];
};

/* One direction: what is under way to the end with the same number. */
struct half {
    struct connection *connection;
    struct segment *flight, *flight_last, *inbox, *inbox_last;
    size_t flight_bytes, inbox_bytes, window;
    uint64_t last_due_ns;
    uint64_t user_timeout_ns; /* of who writes; 0: for ever */
    uint64_t unacked_ns; /* since then bytes have arrived without the writer knowing; 0: none */
    bool pumping;        /* an event will look at the flight */
    bool closed;         /* nothing more is written */
    bool ended;          /* FIN has arrived */
    bool black;          /* whatever enters is lost for ever */
};

struct connection {
    struct connection *next, *next_waiting;
    struct half to[2]; /* 0: the end that connected */
    struct file *end[2];
    unsigned host[2];
    bool pending; /* in the accept queue */
    bool established;
    int reset[2]; /* the error that the end gets; 0: none */
    bool told[2]; /* it has got it */
    unsigned syns;
    uint64_t ns_per_byte;
};

static void mark(struct file *file)
{
    if (file)
        file->process->dirty = true;
}

static bool is_cut(const struct connection *c, int to)
{
    unsigned a = c->host[1 - to], b = c->host[to];
    return machine.cut[a][b] || machine.down[a] || machine.down[b] || c->to[to].black;
}

static uint64_t latency_ns(void)
{
    return 1000 + sim_below(sim_faults.latency_us) * 1000;
}

/* ---- segments ---- */

static void free_segments(struct segment *list)
{
    while (list) {
        struct segment *next = list->next;
        free(list);
        list = next;
    }
}

static void lose_flight(struct half *half)
{
    sim_counts[SIM_bytes_lost_by_reset] += half->flight_bytes;
    free_segments(half->flight);
    half->flight = half->flight_last = NULL;
    half->flight_bytes = 0;
}

static void pump(void *user);

static void pump_at(struct half *half, uint64_t at_ns)
{
    if (half->pumping)
        return;
    half->pumping = true;
    sim_at(at_ns, pump, half);
}

static void launch(struct half *half, struct segment *segment)
{
    uint64_t due_ns = machine.now_ns + latency_ns();
    if (due_ns < half->last_due_ns)
        due_ns = half->last_due_ns;
    due_ns += segment->size * half->connection->ns_per_byte;
    half->last_due_ns = segment->due_ns = due_ns;
    if (half->flight_last)
        half->flight_last->next = segment;
    else
        half->flight = segment;
    half->flight_last = segment;
    half->flight_bytes += segment->size;
    pump_at(half, half->flight->due_ns);
}

static struct segment *new_segment(enum segment_kind kind, size_t size)
{
    struct segment *segment = calloc(1, sizeof(*segment) + size);
    assert(segment);
    segment->kind = kind;
    segment->size = size;
    return segment;
}

/* A reset on its way to one end; what was under way to it may be lost. */
static void send_reset(struct connection *c, int to)
{
    if (c->reset[to])
        return;
    if (sim_chance(500))
        lose_flight(&c->to[to]);
    launch(&c->to[to], new_segment(RST, 0));
}

static void reset_end(struct connection *c, int side, int error)
{
    if (c->reset[side])
        return;
    sim_counts[SIM_resets]++;
    c->reset[side] = error;
    lose_flight(&c->to[side]);
    lose_flight(&c->to[1 - side]);
    mark(c->end[side]);
}

static bool is_open(const struct connection *c, int side)
{
    return c->end[side] || (side == 1 && c->pending);
}

/* The acknowledgement of what has arrived, or the reset in its place, takes the other direction,
 * which may be cut. */
static void acknowledge(void *user)
{
    struct half *half = user;
    struct connection *c = half->connection;
    int writer = half == &c->to[0];
    if (is_cut(c, writer) && !c->reset[writer]) {
        if (machine.now_ns - half->unacked_ns >= half->user_timeout_ns)
            reset_end(c, writer, -ETIMEDOUT);
        else
            sim_at(machine.now_ns + RETRY_NS, acknowledge, half);
        return;
    }
    half->unacked_ns = 0;
    if (!is_open(c, 1 - writer))
        send_reset(c, writer); /* for the bytes, which came once more */
}

static void await_acknowledgement(struct half *half, int writer)
{
    if (!half->user_timeout_ns || half->unacked_ns || !is_cut(half->connection, writer))
        return;
    half->unacked_ns = machine.now_ns;
    acknowledge(half);
}

static void arrive(struct connection *c, int side, struct segment *segment)
{
    struct half *half = &c->to[side];
    half->flight_bytes -= segment->size;
    if (segment->kind == RST) {
        free(segment);
        reset_end(c, side, -ECONNRESET);
        return;
    }
    if (!is_open(c, side) || half->ended || c->reset[side]) {
        if (segment->kind == DATA) {
            send_reset(c, 1 - side);
            await_acknowledgement(half, 1 - side);
        }
        free(segment);
        return;
    }
    sim_note(segment->kind, segment->size);
    if (segment->kind == FIN) {
        half->ended = true;
        free(segment);
    } else {
        segment->next = NULL;
        if (half->inbox_last)
            half->inbox_last->next = segment;
        else
            half->inbox = segment;
        half->inbox_last = segment;
        half->inbox_bytes += segment->size;
        await_acknowledgement(half, 1 - side);
    }
    mark(c->end[side]);
}

static void pump(void *user)
{
    struct half *half = user;
    struct connection *c = half->connection;
    int side = half == &c->to[1];
    half->pumping = false;
    while (half->flight && half->flight->due_ns <= machine.now_ns) {
        struct segment *segment = half->flight;
        bool cut = is_cut(c, side);
        if (cut && segment->kind != RST) {
            uint64_t limit_ns = half->user_timeout_ns;
            sim_counts[SIM_segments_held_back]++;
            if (limit_ns && machine.now_ns - segment->due_ns >= limit_ns)
                reset_end(c, 1 - side, -ETIMEDOUT);
            else if (!half->black || limit_ns)
                pump_at(half, machine.now_ns + RETRY_NS);
            return;
        }
        half->flight = segment->next;
        if (!half->flight)
            half->flight_last = NULL;
        if (cut)
            free(segment);
        else
            arrive(c, side, segment);
    }
    if (half->flight)
        pump_at(half, half->flight->due_ns);
}

/* ---- connecting ---- */

static struct file *find_listener(unsigned host)
{
    for (struct sim_process *process = machine.processes; process; process = process->next) {
        for (int fd = FD_FIRST; !process->ended && process->host == host && fd < FD_MAX; fd++) {
            if (process->fds[fd] && process->fds[fd]->kind == FILE_LISTENER)
                return process->fds[fd];
        }
    }
    return NULL;
}

static void client_established(void *user)
{
    struct connection *c = user;
    if (c->reset[0])
        return;
    if (is_cut(c, 0)) {
        sim_at(machine.now_ns + RETRY_NS, client_established, c);
        return;
    }
    c->established = true;
    mark(c->end[0]);
}

static void refuse(void *user)
{
    struct connection *c = user;
    if (is_cut(c, 0) || c->reset[0])
        return; /* lost: the client runs into its timeout */
    sim_counts[SIM_connects_refused]++;
    c->reset[0] = -ECONNREFUSED;
    mark(c->end[0]);
}

/* The connecting end's SYN arrives, or not. */
static void syn(void *user)
{
    struct connection *c = user;
    if (!c->end[0])
        return;
    if (is_cut(c, 1)) {
        sim_counts[SIM_syns_lost]++;
        sim_at(machine.now_ns + (EVPT_NS_PER_S << (c->syns < 6 ? c->syns++ : 6)), syn, c);
        return;
    }
    struct file *listener = find_listener(c->host[1]);
    if (!listener) {
        sim_at(machine.now_ns + latency_ns(), refuse, c);
        return;
    }
    struct connection **at = &listener->waiting;
    unsigned waiting = 0;
    for (; *at; at = &(*at)->next_waiting)
        waiting++;
    if (waiting >= BACKLOG_MAX)
        return;
    *at = c;
    c->next_waiting = NULL;
    c->pending = true;
    mark(listener);
    sim_at(machine.now_ns + latency_ns(), client_established, c);
}

static struct file *new_end(struct connection *c, int side)
{
    struct file *file = calloc(1, sizeof(*file));
    assert(file);
    file->kind = FILE_SOCKET;
    file->connection = c;
    file->side = side;
    c->end[side] = file;
    return file;
}

int evpt_sys_connect(const struct evpt_addr *addr)
{
    static const int errors[] = {-ENETUNREACH, -EADDRNOTAVAIL, -ENOBUFS, -EMFILE};
    sim_counts[SIM_connects]++;
    if (sim_chance(sim_faults.connect_error)) {
        sim_counts[SIM_connect_errors]++;
        return errors[sim_below(4)];
    }
    struct connection *c = calloc(1, sizeof(*c));
    assert(c);
    c->next = machine.connections;
    machine.connections = c;
    for (int i = 0; i < 2; i++) {
        c->to[i].connection = c;
        c->to[i].window = sim_between(sim_faults.window / 16 + 1, sim_faults.window);
    }
    if (sim_chance(sim_faults.slow_link)) {
        sim_counts[SIM_slow_links]++;
        c->ns_per_byte = sim_between(100, 20000);
    }
    c->host[0] = machine.process->host;
    c->host[1] = (ntohl(addr->u.v4.sin_addr.s_addr) - 0x0a000001) % SIM_HOSTS_MAX;
    struct file *file = new_end(c, 0);
    int fd = sim_add_fd(file);
    if (fd < 0) {
        c->end[0] = NULL;
        free(file);
        return fd;
    }
    sim_at(machine.now_ns + latency_ns(), syn, c);
    return fd;
}

int evpt_sys_connect_result(int fd)
{
    struct file *file = sim_file(fd);
    struct connection *c = file->connection;
    int error = c->reset[0];
    if (!error && !c->established)
        sim_fail("%s asks for the result of a connect that is under way", machine.process->name);
    return error;
}

int evpt_sys_listen(const struct evpt_addr *addr, int backlog)
{
    (void)addr, (void)backlog;
    if (find_listener(machine.process->host))
        return -EADDRINUSE;
    struct file *file = calloc(1, sizeof(*file));
    assert(file);
    file->kind = FILE_LISTENER;
    file->host = machine.process->host;
    int fd = sim_add_fd(file);
    if (fd < 0)
        free(file);
    return fd;
}

int evpt_sys_accept(int fd, struct evpt_addr *ret_peer)
{
    struct file *listener = sim_file(fd);
    struct connection *c = listener->waiting;
    if (!c)
        return -EAGAIN;
    if (sim_chance(sim_faults.accept_error)) {
        static const int errors[] = {-EMFILE, -ENFILE, -ENOMEM, -EPROTO};
        sim_counts[SIM_accepts_failed]++;
        return errors[sim_below(4)];
    }
    listener->waiting = c->next_waiting;
    c->pending = false;
    struct file *file = new_end(c, 1);
    int connection = sim_add_fd(file);
    if (connection < 0) {
        c->end[1] = NULL;
        free(file);
        send_reset(c, 0);
        return connection;
    }
    sim_address(c->host[0], ret_peer);
    return connection;
}

/* Nobody will read it. The other end, which may have waited for the window to open, writes again
 * and finds out: its kernel would have asked. */
static void drop_inbox(struct connection *c, int side)
{
    struct half *in = &c->to[side];
    free_segments(in->inbox);
    in->inbox = in->inbox_last = NULL;
    in->inbox_bytes = 0;
    mark(c->end[1 - side]);
}

void sim_listener_close(struct file *file, bool silent)
{
    for (struct connection *c = file->waiting; c; c = c->next_waiting) {
        c->pending = false;
        drop_inbox(c, 1);
        if (!silent)
            send_reset(c, 0);
    }
}

int evpt_sys_local_addr(int fd, struct evpt_addr *ret_addr)
{
    (void)fd;
    sim_address(machine.process->host, ret_addr);
    return 0;
}

int evpt_sys_peer_addr(int fd, struct evpt_addr *ret_addr)
{
    const struct file *file = sim_file(fd);
    sim_address(file->connection->host[1 - file->side], ret_addr);
    return 0;
}

bool evpt_sys_peer_is_own_user(int fd)
{
    (void)fd;
    return true; /* everybody is */
}

int evpt_sys_socketpair(int ret_fds[2])
{
    (void)ret_fds;
    return -ENOSYS;
}

int evpt_sys_set_send_buffer(int fd, int bytes)
{
    (void)fd, (void)bytes;
    return 0;
}

int evpt_sys_set_notsent_lowat(int fd, int bytes)
{
    (void)fd, (void)bytes;
    return 0;
}

int evpt_sys_set_user_timeout(int fd, uint32_t ms)
{
    struct file *file = sim_file(fd);
    file->connection->to[1 - file->side].user_timeout_ns = ms * EVPT_NS_PER_MS;
    return 0;
}

/* For peers that say no HELLO; here all do. */
int evpt_sys_set_keepalive(int fd, uint32_t ms, int silent_max)
{
    (void)fd, (void)ms, (void)silent_max;
    return 0;
}

/* ---- an end ---- */

static size_t room_of(const struct half *half)
{
    size_t used = half->flight_bytes + half->inbox_bytes;
    return used < half->window ? half->window - used : 0;
}

uint32_t sim_socket_events(const struct file *file)
{
    const struct connection *c = file->connection;
    const struct half *in = &c->to[file->side], *out = &c->to[1 - file->side];
    if (c->reset[file->side])
        return EVPT_READ | EVPT_WRITE | EVPT_HANGUP;
    if (file->side == 0 && !c->established)
        return 0;
    uint32_t events = 0;
    if (in->inbox_bytes || in->ended)
        events |= EVPT_READ;
    /* as Linux has it: not for each byte that becomes free */
    if (room_of(out) * 3 >= out->window || out->closed)
        events |= EVPT_WRITE;
    if (in->ended && out->closed)
        events |= EVPT_HANGUP;
    return events;
}

static size_t cut_short(size_t size, unsigned chance, enum sim_count count)
{
    if (size < 2 || !sim_chance(chance))
        return size;
    sim_counts[count]++;
    return sim_chance(500) ? 1 + sim_below(16) % size : sim_between(1, size);
}

static size_t take(struct half *in, uint8_t *buffer, size_t size)
{
    size_t done = 0;
    while (done < size && in->inbox) {
        struct segment *segment = in->inbox;
        size_t n =
            segment->size - segment->at < size - done ? segment->size - segment->at : size - done;
        memcpy(buffer + done, segment->bytes + segment->at, n);
        segment->at += n;
        done += n;
        if (segment->at < segment->size)
            break;
        in->inbox = segment->next;
        if (!in->inbox)
            in->inbox_last = NULL;
        free(segment);
    }
    in->inbox_bytes -= done;
    return done;
}

ssize_t sim_socket_read(struct file *file, void *buffer, size_t size)
{
    struct connection *c = file->connection;
    struct half *in = &c->to[file->side];
    assert(file->kind == FILE_SOCKET);
    sim_counts[SIM_reads]++;
    if (sim_chance(sim_faults.eagain)) {
        sim_counts[SIM_spurious_eagain]++;
        return -EAGAIN;
    }
    if (in->inbox_bytes) {
        size_t most = in->inbox_bytes < size ? in->inbox_bytes : size;
        size_t got = take(in, buffer, cut_short(most, sim_faults.short_read, SIM_short_reads));
        sim_note(got, machine.now_ns);
        mark(c->end[1 - file->side]); /* there is room again */
        return (ssize_t)got;
    }
    if (c->reset[file->side] && !c->told[file->side]) {
        c->told[file->side] = true;
        return c->reset[file->side];
    }
    return c->reset[file->side] || in->ended ? 0 : -EAGAIN;
}

ssize_t sim_socket_write(struct file *file, const struct iovec *vec, int count)
{
    struct connection *c = file->connection;
    struct half *out = &c->to[1 - file->side];
    assert(file->kind == FILE_SOCKET);
    sim_counts[SIM_writes]++;
    if (c->reset[file->side] || out->closed)
        return c->reset[file->side] && !c->told[file->side] ? -ECONNRESET : -EPIPE;
    if (sim_chance(sim_faults.eagain)) {
        sim_counts[SIM_spurious_eagain]++;
        return -EAGAIN;
    }
    size_t total = 0, room = room_of(out);
    for (int i = 0; i < count; i++)
        total += vec[i].iov_len;
    if (room < total)
        sim_counts[SIM_window_full]++;
    if (!room)
        return -EAGAIN;
    size_t size = cut_short(total < room ? total : room, sim_faults.short_write, SIM_short_writes);
    struct segment *segment = new_segment(DATA, size);
    size_t done = 0;
    for (int i = 0; done < size; i++) {
        size_t n = vec[i].iov_len < size - done ? vec[i].iov_len : size - done;
        memcpy(segment->bytes + done, vec[i].iov_base, n);
        done += n;
    }
    launch(out, segment);
    return (ssize_t)size;
}

static void finish(struct half *out)
{
    if (out->closed)
        return;
    out->closed = true;
    launch(out, new_segment(FIN, 0));
}

int evpt_sys_shutdown_write(int fd)
{
    struct file *file = sim_file(fd);
    if (file->connection->reset[file->side])
        return -ENOTCONN;
    finish(&file->connection->to[1 - file->side]);
    return 0;
}

void sim_socket_close(struct file *file, bool silent)
{
    struct connection *c = file->connection;
    int side = file->side;
    bool unread = c->to[side].inbox_bytes > 0;
    c->end[side] = NULL;
    drop_inbox(c, side);
    if (silent)
        lose_flight(&c->to[1 - side]);
    if (silent || c->reset[side])
        return;
    if (unread)
        send_reset(c, 1 - side);
    else
        finish(&c->to[1 - side]);
}

/* ---- what happens to connections from outside ---- */

void sim_cut(unsigned from, unsigned to, bool cut)
{
    machine.cut[from][to] = cut;
}

void sim_heal(void)
{
    memset(machine.cut, 0, sizeof(machine.cut));
}

void sim_widen(void)
{
    for (struct connection *c = machine.connections; c; c = c->next) {
        c->ns_per_byte = 0;
        for (int i = 0; i < 2; i++) {
            if (c->to[i].window < sim_faults.window)
                c->to[i].window = sim_faults.window;
            mark(c->end[i]);
        }
    }
}

bool sim_net_is_idle(void)
{
    for (const struct connection *c = machine.connections; c; c = c->next) {
        for (int i = 0; i < 2; i++) {
            if ((c->to[i].flight && !c->to[i].black) ||
                (c->to[i].inbox && (c->end[i] || c->pending)))
                return false;
        }
    }
    return true;
}

static struct connection *pick_connection(void)
{
    struct connection *picked = NULL;
    uint64_t count = 0;
    for (struct connection *c = machine.connections; c; c = c->next) {
        if (c->end[0] && c->end[1] && !c->reset[0] && !c->reset[1] && sim_below(++count) == 0)
            picked = c;
    }
    return picked;
}

void sim_harm(enum sim_harm harm)
{
    struct connection *c = pick_connection();
    if (!c)
        return;
    int side = (int)sim_below(2);
    static const int errors[] = {-ECONNRESET, -ETIMEDOUT, -EHOSTUNREACH};
    switch (harm) {
    case SIM_RESET:
        reset_end(c, side, errors[sim_below(3)]);
        if (sim_chance(700))
            reset_end(c, 1 - side, -ECONNRESET);
        break;
    case SIM_HALF_CLOSE:
        /* as a proxy between the two would: one gets an end of file, the other does not know */
        sim_counts[SIM_half_closes]++;
        if (!c->to[side].closed)
            launch(&c->to[side], new_segment(FIN, 0));
        break;
    case SIM_BLACK_HOLE:
        sim_counts[SIM_black_holes]++;
        c->to[side].black = true;
        c->to[1 - side].black = c->to[1 - side].black || sim_chance(500);
        break;
    }
}

void sim_net_fini(void)
{
    while (machine.connections) {
        struct connection *c = machine.connections;
        machine.connections = c->next;
        for (int i = 0; i < 2; i++) {
            free_segments(c->to[i].flight);
            free_segments(c->to[i].inbox);
        }
        free(c);
    }
}
