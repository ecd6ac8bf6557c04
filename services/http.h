/* A small HTTP/1.1 server for pages that are asked for: GET and HEAD, nothing that changes
 * anything.
 *
 * For Prometheus, health checks and whoever else looks at a node from outside. It is strict, and
 * bounded in everything: what it does not understand gets one clear answer (http_request.h) and the
 * connection ends; a request has to be complete in EVPT_HTTP_REQUEST_MS, an answer taken in
 * EVPT_HTTP_WRITE_MS. When all connections are in use, the one that has rested the longest between
 * two requests makes room; where none rests, the new one gets 503.
 *
 *   reading --request--> asked --evpt_http_respond--> writing --all of it taken--> reading
 *      |                                                 +--last answer--> lingering --> closed
 *      +--bad request--> writing; time over, end of file, error --> closed
 *
 * Requests of one connection are answered one after the other. The loop's thread only.
 */
#ifndef EVPT_SERVICES_HTTP_H
#define EVPT_SERVICES_HTTP_H

#include "reactor/listener.h"
#include "reactor/stream.h"
#include "services/http_request.h"

#define EVPT_HTTP_CONNECTIONS_MAX 16 /* a few scrapers, a health check, and somebody with curl */
#define EVPT_HTTP_REQUEST_MS 5000    /* from the first byte, or the connection's start */
#define EVPT_HTTP_REST_MS 90000      /* between two requests: scrapes come each minute as a rule */
#define EVPT_HTTP_WRITE_MS 10000
#define EVPT_HTTP_LINGER_MS 1000 /* for the last words to arrive, see http.c */

struct evpt_http;

struct evpt_http_ops {
    /* GET or HEAD of this path (not terminated). To be answered with evpt_http_respond, at once or
     * later. */
    void (*on_request)(struct evpt_http *http, uint32_t connection, const char *path, size_t size,
                       void *user);
};

struct evpt_http_connection {
    struct evpt_http *http; /* NULL: free */
    struct evpt_stream stream;
    struct evpt_timer timer;
    uint32_t id;
    uint8_t state;
    bool begun;      /* a part of a request has come */
    bool head, last; /* the answer to give has no body; the connection ends with it */
    uint64_t since;  /* number of its last event: the smallest has rested the longest */
    char *answering; /* what is being written */
};

struct evpt_http { /* caller's storage, must not move; zeroed: closed */
    /* private */
    struct evpt_loop *loop;
    struct evpt_listener listener;
    const struct evpt_http_ops *ops;
    void *user;
    uint64_t events;
    uint32_t accepted;
    struct evpt_http_connection connections[EVPT_HTTP_CONNECTIONS_MAX];
};

/* Listens. 0 or -errno. `ops` is not copied. */
int evpt_http_start(struct evpt_http *http, struct evpt_loop *loop, const struct evpt_addr *addr,
                    const struct evpt_http_ops *ops, void *user);
/* Closes everything at once. NULL and zeroed are fine. */
void evpt_http_stop(struct evpt_http *http);
/* Where it listens (the kernel's port where 0 was asked for). */
int evpt_http_addr(const struct evpt_http *http, struct evpt_addr *ret_addr);
/* Answers a request; nothing where its connection has gone meanwhile. The text is copied. */
void evpt_http_respond(struct evpt_http *http, uint32_t connection, int status, const char *type,
                       const char *text, size_t size);

#endif
