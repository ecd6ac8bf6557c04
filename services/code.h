/* Outcomes of a call (SPEC section 4): code, name, what it says about execution. */
#ifndef EVPT_SERVICES_CODE_H
#define EVPT_SERVICES_CODE_H

#include <stdint.h>

enum evpt_executed { EVPT_EXECUTED_NO, EVPT_EXECUTED_MAYBE, EVPT_EXECUTED_YES };

/* code, name, text, executed where nothing more is known */
#define EVPT_CODES(X)                                                                              \
    X(EVPT_CODE_OK, 0, "ok", "ok", EVPT_EXECUTED_YES)                                              \
    X(EVPT_CODE_UNKNOWN_NODE, 1, "unknown_node", "not in the node list", EVPT_EXECUTED_NO)         \
    X(EVPT_CODE_CONNECT_FAILED, 2, "connect_failed", "cannot connect", EVPT_EXECUTED_NO)           \
    X(EVPT_CODE_DISCONNECTED, 3, "disconnected", "the connection was lost", EVPT_EXECUTED_MAYBE)   \
    X(EVPT_CODE_TIMEOUT, 4, "timeout", "the deadline passed", EVPT_EXECUTED_MAYBE)                 \
    X(EVPT_CODE_UNKNOWN_SERVICE, 5, "unknown_service", "no such service", EVPT_EXECUTED_NO)        \
    X(EVPT_CODE_UNKNOWN_METHOD, 6, "unknown_method", "no such method", EVPT_EXECUTED_NO)           \
    X(EVPT_CODE_FAILED, 7, "failed", "the method failed", EVPT_EXECUTED_YES)                       \
    X(EVPT_CODE_OVERLOADED, 8, "overloaded", "a limit was hit", EVPT_EXECUTED_NO)                  \
    X(EVPT_CODE_TOO_LARGE, 9, "too_large", "longer than message_max", EVPT_EXECUTED_NO)            \
    X(EVPT_CODE_BAD_MESSAGE, 10, "bad_message", "the peer could not read it", EVPT_EXECUTED_NO)    \
    X(EVPT_CODE_STOPPING, 11, "stopping", "the node is draining", EVPT_EXECUTED_NO)                \
    X(EVPT_CODE_DENIED, 12, "denied", "not for this caller", EVPT_EXECUTED_NO)

enum evpt_code {
#define X(name, value, word, text, executed) name = value,
    EVPT_CODES(X)
#undef X
        EVPT_CODE_COUNT
};

/* "timeout"; "unknown_code" for a number that is none of ours. Static storage. */
const char *evpt_code_name(int code);
/* "the deadline passed" */
const char *evpt_code_text(int code);
/* For codes that a peer sent and that are none of ours: maybe. */
enum evpt_executed evpt_code_executed(int code);
/* "no", "maybe", "yes" */
const char *evpt_executed_name(enum evpt_executed executed);

#endif
