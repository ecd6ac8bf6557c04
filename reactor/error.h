/* Error codes: one table for the whole project.
 *
 * A function that can fail returns 0 (or a count) on success and a negative int on failure:
 * `-errno` for what the system refused, or one of the EVPT_E* values below for what evpt itself
 * refused. The two ranges do not meet: errno values stay below 4096 on Linux (MAX_ERRNO), ours
 * start at 10001.
 */
#ifndef EVPT_REACTOR_ERROR_H
#define EVPT_REACTOR_ERROR_H

#define EVPT_ERRORS(X)                                                                             \
    X(EVPT_ELIMIT, 10001, "a limit was hit")                                                       \
    X(EVPT_ETRUNCATED, 10002, "the bytes end too early")                                           \
    X(EVPT_EFORMAT, 10003, "the bytes have another form than expected")                            \
    X(EVPT_EPROTOCOL, 10004, "the peer broke the protocol")                                        \
    X(EVPT_ETOOLARGE, 10005, "longer than message_max")                                            \
    X(EVPT_ECLOSED, 10006, "closed")                                                               \
    X(EVPT_EEOF, 10007, "closed by the peer")                                                      \
    X(EVPT_ETIMEOUT, 10008, "timed out")                                                           \
    X(EVPT_ENOTFOUND, 10009, "not found")                                                          \
    X(EVPT_EEXISTS, 10010, "exists already")                                                       \
    X(EVPT_EDEPTH, 10011, "nested too deep")                                                       \
    X(EVPT_ETLS, 10012, "TLS failed")                                                              \
    X(EVPT_EDENIED, 10013, "the peer does not accept this node")

enum evpt_error {
#define X(name, value, text) name = value,
    EVPT_ERRORS(X)
#undef X
};

/* Text for a negative return value of ours or `-errno`. Static or thread-local storage, never NULL.
 * Any thread. */
const char *evpt_strerror(int error);

/* Name of an EVPT_E* value or of an errno ("EVPT_ELIMIT", "ECONNREFUSED"); static storage. */
const char *evpt_error_name(int error);

#endif
