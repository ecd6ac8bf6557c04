/* clusterclient: who waits for what on other nodes.
 *
 * The path of each request: a service posts it to this pinned service; here it gets its wire
 * session and its context, and is sent, cached or refused; the reply finds its context again and
 * goes to the caller. Start-up and policy are Lua (lua/service/clusterclient.lua): it hands in node
 * lists and is told of connections that come and go.
 *
 * State of a node's connection (connectStatusDict), `allowed` in clusterclient.c:
 *
 *     disconnect -> connecting     a request came in, and the back-off after the last failure is
 * over connecting -> connected      requestCache is sent, in order; its contexts move to
 * session2context connecting -> disconnect     failed: everything in requestCache is answered
 * connect_failed connected  -> disconnect     lost: everything in session2context is answered
 * disconnected any        -> down           the node list says `false` or does not name it any
 * more: everything is answered down       -> disconnect     it is back in the list
 *
 * Every call has exactly one context from the moment it is accepted here until it is answered, and
 * each path that answers takes the context out of its tables first. So there is exactly one answer,
 * at the deadline at the latest (a timer per context).
 *
 * Loop thread only, except evpt_clusterclient_lookup.
 */
#ifndef EVPT_SERVICES_CLUSTERCLIENT_H
#define EVPT_SERVICES_CLUSTERCLIENT_H

#include "cluster/cluster_mgr.h"
#include "reactor/histogram.h"
#include "services/code.h"
#include "services/config.h"
#include "services/log.h"
#include "services/node_list.h"
#include "services/scheduler.h"

#define EVPT_BACKOFF_MIN_MS 50
#define EVPT_BACKOFF_MAX_MS 2000
#define EVPT_STRAY_REPLIES_MAX 1000 /* SPEC: replies to no request that a connection survives */

enum evpt_connect_status {
    EVPT_STATUS_DISCONNECT,
    EVPT_STATUS_CONNECTING,
    EVPT_STATUS_CONNECTED,
    EVPT_STATUS_DOWN,
    EVPT_STATUS_COUNT
};
const char *evpt_connect_status_name(enum evpt_connect_status status);

struct evpt_context;

/* What has been counted of the calls to one node. */
struct evpt_peer_meter {
    struct evpt_histogram duration;         /* of calls that were not refused at once */
    uint64_t outcomes[EVPT_CODE_COUNT + 1]; /* calls that have ended, by code; last: other codes */
    uint64_t connect_failures;
};

/* What is known of one node. A name that goes from the node list becomes `down`, and is forgotten
 * when the next list comes. */
struct evpt_peer {
    char name[EVPT_NODE_NAME_MAX + 1];
    struct evpt_addr addr;
    bool listed; /* named in the node list (with an address or `false`) */
    enum evpt_connect_status status;
    struct evpt_session *session; /* while connected */
    bool going_away;              /* it said GOAWAY: no new requests on this connection */
    struct evpt_list sent;        /* contexts in session2context, in order of sending */
    struct evpt_list cached;      /* contexts in requestCache, in order of arrival */
    uint32_t sent_count, cached_count;
    bool takes_over; /* requests may lie unread in a connection that was lost: see transmit */
    uint64_t *send_ends; /* ring: where the sends end that may still wait for the socket */
    uint32_t send_first, send_count, send_capacity;
    uint32_t stray_replies, late_replies_due;
    unsigned failures;    /* in a row, without a reply in between */
    uint64_t retry_at_ns; /* before it a request fails at once */
    uint64_t connects, disconnects;
    struct evpt_peer_meter meter;
    uint32_t message_max;          /* from its last HELLO; 0: it never said any */
    struct evpt_timer hello_timer; /* the time that it has for the next one */
};

struct evpt_clusterclient {
    struct evpt_scheduler *scheduler;
    struct evpt_cluster_mgr *mgr;
    struct evpt_loop *loop;
    struct evpt_log *log;
    const struct evpt_config *config;
    bool forgot_connections; /* peers that had some were removed from the list, ever */
    uint32_t handle;   /* of the pinned service: requests go there */
    uint32_t observer; /* handle of the Lua service that is told of changes; 0: nobody */
    _Atomic uint64_t calls, sends, lost_sends, timeouts;
    _Atomic uint32_t version; /* of the directory: changes with every status */
    /* private */
    pthread_mutex_t lock; /* of peers' name, addr, listed, status, and the two arrays, for
                             evpt_clusterclient_lookup */
    struct evpt_peer **peers;
    uint32_t peer_count, peer_capacity;
    struct evpt_peer **peer_table; /* the same by name: open addressing, at most half full */
    uint32_t table_capacity;       /* a power of two */
    struct evpt_context **session2context; /* open addressing by session */
    uint32_t context_bits, context_count;  /* 2^bits cells; 0: none yet */
    struct evpt_list spare;                /* contexts for reuse */
    uint32_t spare_count;
    uint32_t next_session;
    bool stopping;
};

int evpt_clusterclient_init(struct evpt_clusterclient *client, struct evpt_scheduler *scheduler,
                            struct evpt_cluster_mgr *mgr, struct evpt_loop *loop,
                            struct evpt_log *log, const struct evpt_config *config);
/* Frees everything without answering. After the scheduler's threads have ended. */
void evpt_clusterclient_fini(struct evpt_clusterclient *client);

/* A request: kind CALL or SEND, made by evpt_request_new, and the node's name (message->code bytes)
 * behind its data (data + size). Takes the message over. */
void evpt_clusterclient_request(struct evpt_clusterclient *client, struct evpt_message *message);
/* Puts the node's name where evpt_clusterclient_request looks for it. 0 or -ENOMEM. */
int evpt_clusterclient_address(struct evpt_message **message, const char *node, size_t size);

/* The differences that a node list makes. Arrays of names that point into peers. */
struct evpt_node_diff {
    const char **added, **removed, **changed;
    size_t added_count, removed_count, changed_count;
};
/* Applies a checked list; closes what was removed or changed and answers what waits for it. 0 or
 * -ENOMEM (nothing changed). */
int evpt_clusterclient_apply(struct evpt_clusterclient *client, const struct evpt_node_list *list,
                             struct evpt_node_diff *ret_diff);
void evpt_node_diff_fini(struct evpt_node_diff *diff);

/* No new requests (they get `stopping`); those in flight go on. */
void evpt_clusterclient_drain(struct evpt_clusterclient *client);
/* Calls that have no answer yet. */
uint32_t evpt_clusterclient_pending(const struct evpt_clusterclient *client);

/* The peer is alive (it connected to us): the back-off is over. */
void evpt_clusterclient_seen(struct evpt_clusterclient *client, const char *name);

/* Any thread: what is known of a node. False: the list does not name it. */
bool evpt_clusterclient_lookup(struct evpt_clusterclient *client, const char *name, size_t size,
                               struct evpt_addr *ret_addr, enum evpt_connect_status *ret_status);
/* Any thread: calls `fn` for every listed node, under the lock. */
typedef void (*evpt_peer_each_fn)(const char *name, const struct evpt_addr *addr,
                                  enum evpt_connect_status status, void *user);
void evpt_clusterclient_each(struct evpt_clusterclient *client, evpt_peer_each_fn fn, void *user);

/* Events of the cluster_mgr's client side. */
void evpt_clusterclient_on_connect(struct evpt_clusterclient *client, struct evpt_peer *peer,
                                   struct evpt_session *session, int error);
void evpt_clusterclient_on_reply(struct evpt_clusterclient *client, struct evpt_session *session,
                                 struct evpt_message *message);
void evpt_clusterclient_on_hello(struct evpt_clusterclient *client, struct evpt_session *session);
void evpt_clusterclient_on_goaway(struct evpt_clusterclient *client, struct evpt_session *session,
                                  int code, const char *text);
void evpt_clusterclient_on_queued(struct evpt_clusterclient *client, uint32_t frame_session,
                                  uint64_t position);
void evpt_clusterclient_on_disconnect(struct evpt_clusterclient *client,
                                      struct evpt_session *session, int error, const char *reason);
/* Debug: asserts every invariant. */
void evpt_clusterclient_check(const struct evpt_clusterclient *client);

#endif
