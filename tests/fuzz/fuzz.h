/* What the fuzz targets share: an input that is read from both ends, a machine below evpt that
 * behaves the same for the same input, and the check that nothing is left.
 *
 * A target is one function, fuzz_one. Under libFuzzer (clang) its program looks for inputs that
 * make it fail; the same file linked with replay.c runs the inputs that it is given, which is how
 * the committed corpus is a test of every build. A failure is an abort, with a line that says what
 * does not hold, or a sanitizer's report.
 *
 * The linker puts fuzz.c's functions into the place of some of reactor/sys.h's (meson.build): time
 * passes when the target says so, randomness is always the same, allocations are counted and can be
 * refused, and files are what the target says they are.
 */
#ifndef EVPT_TESTS_FUZZ_FUZZ_H
#define EVPT_TESTS_FUZZ_FUZZ_H

#include "reactor/sys.h"

/* ---- the input ---- */

/* What is fed to evpt comes from the front, what decides how comes from the back: so a byte more or
 * less of the one does not change the meaning of the other. */
struct fuzz_input {
    const uint8_t *at, *end;
};

/* The one function of a target. */
void fuzz_one(struct fuzz_input *in);

static inline size_t fuzz_left(const struct fuzz_input *in)
{
    return (size_t)(in->end - in->at);
}
/* The last byte; 0 where there is none. */
uint8_t fuzz_byte(struct fuzz_input *in);
/* At most `size` bytes from the front, as a copy of their own, so that a read past them is seen;
 * valid until the next call. Never NULL. */
const uint8_t *fuzz_take(struct fuzz_input *in, size_t size, size_t *ret_size);

/* ---- what must hold ---- */

#define FUZZ_CHECK(condition)                                                                      \
    do {                                                                                           \
        if (!(condition))                                                                          \
            fuzz_fail(__FILE__, __LINE__, #condition);                                             \
    } while (0)
void fuzz_fail(const char *file, int line, const char *what) __attribute__((noreturn));

/* ---- the machine below ---- */

void fuzz_pass_ms(uint64_t ms);
/* The nth allocation from now is refused (1: the next); 0: none. Returns what was still to come,
 * for a target that makes allocations of its own in between. */
unsigned fuzz_refuse_allocation(unsigned nth);
/* Bytes that are allocated, and the most that ever were since fuzz_one was called. */
size_t fuzz_memory(void);
size_t fuzz_memory_peak(void);
/* Each write takes at most so many bytes; 0: no limit. */
void fuzz_limit_writes(size_t bytes);
/* What evpt_sys_file_read finds, whatever the path; a copy is handed out. NULL: nothing. What
 * evpt_sys_file_replace writes takes its place. */
void fuzz_set_file(const void *bytes, size_t size);

/* Bytes `from`, `from` + 1 ... of those that follow from a number, and whether these are such. */
void fuzz_fill(void *bytes, size_t size, uint32_t number, size_t from);
bool fuzz_is_filled(const void *bytes, size_t size, uint32_t number, size_t from);
/* A number for what was reported so far. */
uint64_t fuzz_hash(uint64_t hash, const void *bytes, size_t size);

#endif
