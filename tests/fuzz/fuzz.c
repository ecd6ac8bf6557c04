#include "fuzz.h"

#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct {
    uint64_t now_ns, cpu_ns, random;
    size_t live, bytes, peak; /* allocations and their bytes */
    unsigned refuse_in;
    size_t write_max;
    uint8_t *taken; /* by fuzz_take */
    char *file;
    size_t file_size;
} machine;

/* ---- the input ---- */

uint8_t fuzz_byte(struct fuzz_input *in)
{
    return in->at < in->end ? *--in->end : 0;
}

const uint8_t *fuzz_take(struct fuzz_input *in, size_t size, size_t *ret_size)
{
    if (size > fuzz_left(in))
        size = fuzz_left(in);
    free(machine.taken);
    machine.taken = malloc(size ? size : 1);
    if (!machine.taken)
        abort();
    memcpy(machine.taken, in->at, size);
    in->at += size;
    *ret_size = size;
    return machine.taken;
}

void fuzz_fail(const char *file, int line, const char *what)
{
    fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, what);
    abort();
}

/* ---- memory ---- */

static bool refuses(void)
{
    return machine.refuse_in && --machine.refuse_in == 0;
}

static void *count_in(void *memory)
{
    if (!memory)
        return NULL;
    machine.live++;
    machine.bytes += malloc_usable_size(memory);
    if (machine.bytes > machine.peak)
        machine.peak = machine.bytes;
    return memory;
}

static void count_out(void *memory)
{
    if (!memory)
        return;
    machine.live--;
    machine.bytes -= malloc_usable_size(memory);
}

void *__real_evpt_sys_alloc(size_t bytes);
void *__wrap_evpt_sys_alloc(size_t bytes);
void *__wrap_evpt_sys_alloc(size_t bytes)
{
    return refuses() ? NULL : count_in(__real_evpt_sys_alloc(bytes));
}

void *__real_evpt_sys_zalloc(size_t bytes);
void *__wrap_evpt_sys_zalloc(size_t bytes);
void *__wrap_evpt_sys_zalloc(size_t bytes)
{
    return refuses() ? NULL : count_in(__real_evpt_sys_zalloc(bytes));
}

void *__real_evpt_sys_realloc(void *old, size_t bytes);
void *__wrap_evpt_sys_realloc(void *old, size_t bytes);
void *__wrap_evpt_sys_realloc(void *old, size_t bytes)
{
    if (refuses())
        return NULL;
    count_out(old);
    void *moved = __real_evpt_sys_realloc(old, bytes);
    if (!moved)
        abort(); /* the machine itself has none left */
    return count_in(moved);
}

void __real_evpt_sys_free(void *memory);
void __wrap_evpt_sys_free(void *memory);
void __wrap_evpt_sys_free(void *memory)
{
    count_out(memory);
    __real_evpt_sys_free(memory);
}

unsigned fuzz_refuse_allocation(unsigned nth)
{
    unsigned before = machine.refuse_in;
    machine.refuse_in = nth;
    return before;
}

size_t fuzz_memory(void)
{
    return machine.bytes;
}

size_t fuzz_memory_peak(void)
{
    return machine.peak;
}

/* ---- time and chance ---- */

/* It goes on a little with each question: who waits for it to pass must not wait for ever. */
uint64_t __wrap_evpt_sys_now_ns(void);
uint64_t __wrap_evpt_sys_now_ns(void)
{
    return machine.now_ns += 50;
}

/* A millisecond with each question: endless loops in Lua are stopped after a few of them, not after
 * the seconds of real time that evpt allows. */
uint64_t __wrap_evpt_sys_thread_cpu_ns(void);
uint64_t __wrap_evpt_sys_thread_cpu_ns(void)
{
    return machine.cpu_ns += EVPT_NS_PER_MS;
}

void __wrap_evpt_sys_random(void *buffer, size_t bytes);
void __wrap_evpt_sys_random(void *buffer, size_t bytes)
{
    for (uint8_t *at = buffer; bytes; bytes--) {
        machine.random = machine.random * UINT64_C(6364136223846793005) + 1;
        *at++ = (uint8_t)(machine.random >> 56);
    }
}

void fuzz_pass_ms(uint64_t ms)
{
    machine.now_ns += ms * EVPT_NS_PER_MS;
}

/* ---- writing ---- */

ssize_t __real_evpt_sys_write(int fd, const void *buffer, size_t bytes);
ssize_t __wrap_evpt_sys_write(int fd, const void *buffer, size_t bytes);
ssize_t __wrap_evpt_sys_write(int fd, const void *buffer, size_t bytes)
{
    if (machine.write_max && bytes > machine.write_max)
        bytes = machine.write_max;
    return __real_evpt_sys_write(fd, buffer, bytes);
}

ssize_t __real_evpt_sys_writev(int fd, const struct iovec *vec, int count);
ssize_t __wrap_evpt_sys_writev(int fd, const struct iovec *vec, int count);
ssize_t __wrap_evpt_sys_writev(int fd, const struct iovec *vec, int count)
{
    if (machine.write_max)
        return __wrap_evpt_sys_write(fd, vec[0].iov_base, vec[0].iov_len);
    return __real_evpt_sys_writev(fd, vec, count);
}

void fuzz_limit_writes(size_t bytes)
{
    machine.write_max = bytes;
}

/* ---- files ---- */

int __wrap_evpt_sys_file_read(const char *path, size_t max, char **ret_text, size_t *ret_size);
int __wrap_evpt_sys_file_read(const char *path, size_t max, char **ret_text, size_t *ret_size)
{
    (void)path;
    if (!machine.file)
        return -ENOENT;
    if (machine.file_size > max)
        return -EFBIG;
    char *text = __wrap_evpt_sys_alloc(machine.file_size + 1);
    if (!text)
        return -ENOMEM;
    memcpy(text, machine.file, machine.file_size);
    text[machine.file_size] = 0;
    *ret_text = text;
    *ret_size = machine.file_size;
    return 0;
}

int __wrap_evpt_sys_file_replace(const char *path, const void *bytes, size_t size);
int __wrap_evpt_sys_file_replace(const char *path, const void *bytes, size_t size)
{
    (void)path;
    fuzz_set_file(bytes, size);
    return 0;
}

void fuzz_set_file(const void *bytes, size_t size)
{
    char *file = bytes ? malloc(size + 1) : NULL;
    if (bytes && !file)
        abort();
    if (bytes)
        memcpy(file, bytes, size);
    free(machine.file);
    machine.file = file;
    machine.file_size = size;
}

/* ---- bytes ---- */

static uint8_t byte_at(size_t i, uint32_t number)
{
    return (uint8_t)(number * 31 + i * 7 + (i >> 8) * 13);
}

void fuzz_fill(void *bytes, size_t size, uint32_t number, size_t from)
{
    uint8_t *at = bytes;
    for (size_t i = 0; i < size; i++)
        at[i] = byte_at(from + i, number);
}

bool fuzz_is_filled(const void *bytes, size_t size, uint32_t number, size_t from)
{
    const uint8_t *at = bytes;
    for (size_t i = 0; i < size; i++) {
        if (at[i] != byte_at(from + i, number))
            return false;
    }
    return true;
}

/* FNV */
uint64_t fuzz_hash(uint64_t hash, const void *bytes, size_t size)
{
    const uint8_t *at = bytes;
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ at[i]) * UINT64_C(0x100000001b3);
    return (hash ^ size) * UINT64_C(0x100000001b3);
}

/* ---- one run ---- */

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct fuzz_input in = {bytes, bytes + size};
    machine.now_ns = EVPT_NS_PER_S;
    machine.cpu_ns = machine.random = 0;
    machine.refuse_in = 0;
    machine.write_max = 0;
    machine.peak = machine.bytes;
    size_t live = machine.live;
    int fds = evpt_sys_count_fds();
    fuzz_one(&in);
    fuzz_set_file(NULL, 0);
    free(machine.taken);
    machine.taken = NULL;
    FUZZ_CHECK(machine.live == live);
    FUZZ_CHECK(evpt_sys_count_fds() == fds);
    return 0;
}
