/* The linker puts these in the place of sys_linux.c's (meson.build). Calls that cannot fail, or
 * whose failure is a mistake of the caller's (epoll's changes and removals), are left alone. */
#include "torture.h"

#include "reactor/thread.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One scenario has threads: what they touch is atomic. */
static struct {
    enum failing kind;
    unsigned nth, burst;
    atomic_uint counted;
    atomic_bool armed;
    const char *failed;
    atomic_long live;
    _Atomic uint64_t now_ns;
    uint64_t random;
    char *list;
} machine = {.now_ns = EVPT_NS_PER_S};

void fail(const char *file, int line, const char *what)
{
    fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, what);
    abort();
}

void machine_arm(enum failing kind, unsigned nth, unsigned burst)
{
    machine.kind = kind;
    machine.nth = nth;
    machine.burst = burst;
    machine.counted = 0;
    machine.failed = "nothing";
    machine.armed = true;
}

void machine_disarm(void)
{
    machine.armed = false;
}

bool machine_pause(void)
{
    return atomic_exchange(&machine.armed, false);
}

void machine_resume(bool was_armed)
{
    machine.armed = was_armed;
}

unsigned machine_counted(void)
{
    return machine.counted;
}

const char *machine_failed(void)
{
    return machine.failed;
}

long machine_live(void)
{
    return machine.live;
}

void machine_pass_ms(uint64_t ms)
{
    machine.now_ns += ms * EVPT_NS_PER_MS;
}

void machine_set_list(const char *text)
{
    free(machine.list);
    machine.list = strdup(text);
    CHECK(machine.list);
}

static bool fails(enum failing kind, const char *name)
{
    if (!machine.armed || machine.kind != kind)
        return false;
    unsigned n = ++machine.counted;
    if (n < machine.nth || n >= machine.nth + machine.burst || machine.nth == 0)
        return false;
    if (n == machine.nth)
        machine.failed = name;
    return true;
}

/* ---- memory ---- */

static void *counted(void *memory)
{
    machine.live += memory != NULL;
    return memory;
}

void *__real_evpt_sys_alloc(size_t bytes);
void *__wrap_evpt_sys_alloc(size_t bytes);
void *__wrap_evpt_sys_alloc(size_t bytes)
{
    return fails(FAIL_ALLOCATION, "alloc") ? NULL : counted(__real_evpt_sys_alloc(bytes));
}

void *__real_evpt_sys_zalloc(size_t bytes);
void *__wrap_evpt_sys_zalloc(size_t bytes);
void *__wrap_evpt_sys_zalloc(size_t bytes)
{
    return fails(FAIL_ALLOCATION, "zalloc") ? NULL : counted(__real_evpt_sys_zalloc(bytes));
}

void *__real_evpt_sys_realloc(void *old, size_t bytes);
void *__wrap_evpt_sys_realloc(void *old, size_t bytes);
void *__wrap_evpt_sys_realloc(void *old, size_t bytes)
{
    if (fails(FAIL_ALLOCATION, "realloc"))
        return NULL;
    void *memory = __real_evpt_sys_realloc(old, bytes);
    return old ? memory : counted(memory);
}

void __real_evpt_sys_free(void *memory);
void __wrap_evpt_sys_free(void *memory);
void __wrap_evpt_sys_free(void *memory)
{
    machine.live -= memory != NULL;
    __real_evpt_sys_free(memory);
}

/* ---- time and chance ---- */

uint64_t __wrap_evpt_sys_now_ns(void);
uint64_t __wrap_evpt_sys_now_ns(void)
{
    return machine.now_ns += 50;
}

void __wrap_evpt_sys_random(void *buffer, size_t bytes);
void __wrap_evpt_sys_random(void *buffer, size_t bytes)
{
    for (uint8_t *at = buffer; bytes; bytes--) {
        machine.random = machine.random * UINT64_C(6364136223846793005) + 1;
        *at++ = (uint8_t)(machine.random >> 56);
    }
}

/* ---- system calls: each fails with what a good system may say under pressure ---- */

#define WRAP(result, name, parameters, arguments, error)                                           \
    result __real_evpt_sys_##name parameters;                                                      \
    result __wrap_evpt_sys_##name parameters;                                                      \
    result __wrap_evpt_sys_##name parameters                                                       \
    {                                                                                              \
        return fails(FAIL_SYSTEM_CALL, #name) ? (error) : __real_evpt_sys_##name arguments;        \
    }

WRAP(int, epoll_new, (void), (), -EMFILE)
WRAP(int, eventfd, (void), (), -ENFILE)
WRAP(int, reserve_fd, (void), (), -EMFILE)
WRAP(int, listen, (const struct evpt_addr *addr, int backlog), (addr, backlog), -EADDRINUSE)
WRAP(int, accept, (int fd, struct evpt_addr *ret_peer), (fd, ret_peer), -EMFILE)
WRAP(int, connect, (const struct evpt_addr *addr), (addr), -ENETUNREACH)
WRAP(int, local_addr, (int fd, struct evpt_addr *ret_addr), (fd, ret_addr), -ENOBUFS)
WRAP(int, peer_addr, (int fd, struct evpt_addr *ret_addr), (fd, ret_addr), -ENOTCONN)
WRAP(int, shutdown_write, (int fd), (fd), -ENOTCONN)
WRAP(int, set_notsent_lowat, (int fd, int bytes), (fd, bytes), -ENOPROTOOPT)
WRAP(int, set_user_timeout, (int fd, uint32_t ms), (fd, ms), -ENOPROTOOPT)
WRAP(ssize_t, read, (int fd, void *buffer, size_t bytes), (fd, buffer, bytes), -ECONNRESET)
WRAP(ssize_t, write, (int fd, const void *buffer, size_t bytes), (fd, buffer, bytes), -EPIPE)
WRAP(ssize_t, writev, (int fd, const struct iovec *vec, int count), (fd, vec, count), -ECONNRESET)
WRAP(int, file_append_open, (const char *path), (path), -EACCES)
WRAP(int, make_parent, (const char *path), (path), -ENOSPC)

/* The attempt has ended well, and is told otherwise. */
int __real_evpt_sys_connect_result(int fd);
int __wrap_evpt_sys_connect_result(int fd);
int __wrap_evpt_sys_connect_result(int fd)
{
    int error = __real_evpt_sys_connect_result(fd);
    return fails(FAIL_SYSTEM_CALL, "connect_result") ? -ETIMEDOUT : error;
}

int __real_evpt_sys_epoll_set(int epoll, enum evpt_sys_epoll_op op, int fd, uint32_t events,
                              uint64_t token);
int __wrap_evpt_sys_epoll_set(int epoll, enum evpt_sys_epoll_op op, int fd, uint32_t events,
                              uint64_t token);
int __wrap_evpt_sys_epoll_set(int epoll, enum evpt_sys_epoll_op op, int fd, uint32_t events,
                              uint64_t token)
{
    if (op == EVPT_EPOLL_ADD && fails(FAIL_SYSTEM_CALL, "epoll_set"))
        return -ENOSPC;
    return __real_evpt_sys_epoll_set(epoll, op, fd, events, token);
}

int __real_evpt_thread_start(struct evpt_thread *thread, const char *name, evpt_thread_fn fn,
                             void *user);
int __wrap_evpt_thread_start(struct evpt_thread *thread, const char *name, evpt_thread_fn fn,
                             void *user);
int __wrap_evpt_thread_start(struct evpt_thread *thread, const char *name, evpt_thread_fn fn,
                             void *user)
{
    return fails(FAIL_SYSTEM_CALL, "thread_start")
               ? -EAGAIN
               : __real_evpt_thread_start(thread, name, fn, user);
}

/* ---- files: the node list is in memory ---- */

int __wrap_evpt_sys_file_read(const char *path, size_t max, char **ret_text, size_t *ret_size);
int __wrap_evpt_sys_file_read(const char *path, size_t max, char **ret_text, size_t *ret_size)
{
    (void)path;
    CHECK(strlen(machine.list) <= max);
    if (fails(FAIL_SYSTEM_CALL, "file_read"))
        return -EIO;
    size_t size = strlen(machine.list);
    char *text = __wrap_evpt_sys_alloc(size + 1);
    if (!text)
        return -ENOMEM;
    memcpy(text, machine.list, size + 1);
    *ret_text = text;
    *ret_size = size;
    return 0;
}

int __wrap_evpt_sys_file_replace(const char *path, const void *bytes, size_t size);
int __wrap_evpt_sys_file_replace(const char *path, const void *bytes, size_t size)
{
    (void)path;
    if (fails(FAIL_SYSTEM_CALL, "file_replace"))
        return -ENOSPC;
    char *text = strndup(bytes, size);
    CHECK(text);
    machine_set_list(text);
    free(text);
    return 0;
}
