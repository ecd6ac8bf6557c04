#include "reactor/error.h"
#include <stdio.h>
#include <stdint.h>
#include <string.h>

struct entry {
    int value;
    const char *name, *text;
};

static const struct entry entries[] = {
#define X(name, value, text) {value, #name, text},
    EVPT_ERRORS(X)
#undef X
};

/* Both signs are taken: a caller that has an enum value at hand need not negate it. */
static int code_of(int error)
{
    return error < 0 && error != INT32_MIN ? -error : error;
}

static const struct entry *find(int code)
{
    for (size_t i = 0; i < sizeof(entries) / sizeof(entries[0]); i++) {
        if (entries[i].value == code)
            return &entries[i];
    }
    return NULL;
}

const char *evpt_strerror(int error)
{
    static _Thread_local char unknown[32];
    int code = code_of(error);
    const struct entry *entry = find(code);
    if (entry)
        return entry->text;
    /* not strerror(): its text depends on the locale and its storage on the libc's version */
    const char *text = strerrordesc_np(code);
    if (text)
        return text;
    snprintf(unknown, sizeof(unknown), "error %d", error);
    return unknown;
}

const char *evpt_error_name(int error)
{
    int code = code_of(error);
    const struct entry *entry = find(code);
    if (entry)
        return entry->name;
    const char *name = strerrorname_np(code);
    return name ? name : "unknown";
}
