/* What a stream speaks through where the bytes of its socket are not its own: TLS.
 *
 * A stream without one reads and writes its socket; with one it reads and writes through these
 * functions, and nothing above the stream knows. The contract is that of a socket: bytes in order,
 * short reads and writes, -EAGAIN. What TLS adds is kept inside:
 *
 * - A read takes what the socket has and decrypts all of it, so that no bytes wait in the library
 *   where epoll does not see them. Only the end may: `ended` says so.
 * - What it writes by itself (records that the socket took in part, alerts, key updates) waits in a
 *   buffer of its own. `pending` says that there is such; write, with no bytes of the caller's if
 *   need be, writes it first. So reading never waits for a socket that takes nothing, nor writing
 *   for one that has nothing.
 * - Bytes count as written when the last byte of their record has been handed to the socket, not
 *   before: a peer that has half a record has nothing of it.
 *
 *     evpt_tls_connect(tls, fd, "battle_1", &transport);
 *     evpt_handshake_start(&handshake, loop, fd, transport, ...);   (handshake.h)
 *     stream.transport = transport; evpt_stream_start(&stream, loop, fd, ...);
 *
 * The descriptor stays with whoever has the transport. The loop's thread only.
 */
#ifndef EVPT_REACTOR_TRANSPORT_H
#define EVPT_REACTOR_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#define EVPT_TRANSPORT_NAME_MAX 64 /* bytes of a peer's name: as long as a node's */
#define EVPT_TRANSPORT_REASON_SIZE 128
/* The least room that a read may be given: what one read of the socket can decrypt to. */
#define EVPT_TRANSPORT_READ_MIN (128 * 1024)
/* Bytes of a peer's that are looked at before it is known who it is: a certificate with its chain
 * takes 2 to 6 KiB. */
#define EVPT_TRANSPORT_HANDSHAKE_MAX 16384

struct evpt_transport;

struct evpt_transport_ops {
    /* The next step until the peer is known. 0: it is; -EAGAIN: when the socket is readable, or
     * writable where `pending`; else an error. */
    int (*handshake)(struct evpt_transport *transport);
    /* A count; 0 at an end that the peer has announced; -EAGAIN; an error, -EVPT_ETRUNCATED where
     * the socket ended without a word. `size`: EVPT_TRANSPORT_READ_MIN at least. */
    ssize_t (*read)(struct evpt_transport *transport, void *buffer, size_t size);
    /* As evpt_sys_writev, but that it also writes what is pending, and that the bytes which follow
     * the count have to come again, the same, with the next call. */
    ssize_t (*write)(struct evpt_transport *transport, const struct iovec *vec, int count);
    /* Says that nothing more will be written. */
    void (*shutdown)(struct evpt_transport *transport);
    /* Has the peer proved that it may speak for this name? */
    bool (*speaks_for)(const struct evpt_transport *transport, const char *name);
    void (*free)(struct evpt_transport *transport);
};

struct evpt_transport {
    const struct evpt_transport_ops *ops;
    bool pending;      /* bytes of its own wait for the socket */
    bool more;         /* the last read took all that it may at a time: another one is worth it */
    bool ended;        /* all bytes have been read; the next read tells how it ended */
    bool names_proved; /* names count only where speaks_for says so */
    /* Who the peer is, by what it has proved; "" where names are not proved. Of several names the
     * one that was expected, or the first one that is known. */
    char peer[EVPT_TRANSPORT_NAME_MAX + 1];
    char reason[EVPT_TRANSPORT_REASON_SIZE]; /* of the error, in words; "": the error's own */
};

static inline void evpt_transport_free(struct evpt_transport *transport)
{
    if (transport)
        transport->ops->free(transport);
}

#endif
