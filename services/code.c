#include "services/code.h"

#include <stddef.h>

static const struct {
    const char *name, *text;
    enum evpt_executed executed;
} codes[EVPT_CODE_COUNT] = {
#define X(name, value, word, text, executed) [value] = {word, text, executed},
    EVPT_CODES(X)
#undef X
};

static int is_ours(int code)
{
    return code >= 0 && code < EVPT_CODE_COUNT;
}

const char *evpt_code_name(int code)
{
    return is_ours(code) ? codes[code].name : "unknown_code";
}

const char *evpt_code_text(int code)
{
    return is_ours(code) ? codes[code].text : "a code that this version does not know";
}

enum evpt_executed evpt_code_executed(int code)
{
    return is_ours(code) ? codes[code].executed : EVPT_EXECUTED_MAYBE;
}

const char *evpt_executed_name(enum evpt_executed executed)
{
    static const char *const names[] = {"no", "maybe", "yes"};
    return names[executed];
}
