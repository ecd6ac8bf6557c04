/* What clusterclient.c and clusterclient_nodes.c share. */
#ifndef EVPT_SERVICES_CLUSTERCLIENT_PRIVATE_H
#define EVPT_SERVICES_CLUSTERCLIENT_PRIVATE_H

#include "services/clusterclient.h"
#include "services/code.h"

/* The one setter of a peer's status: asserts that the step is allowed, and tells the observer. */
void evpt_clusterclient_set_status(struct evpt_clusterclient *client, struct evpt_peer *peer,
                                   enum evpt_connect_status status, const char *detail);
/* NULL: no peer of that name was ever listed. On other threads under the lock. */
struct evpt_peer *evpt_clusterclient_find_peer(const struct evpt_clusterclient *client,
                                               const char *name, size_t size);
/* Answers everything in requestCache. */
void evpt_clusterclient_fail_cached(struct evpt_clusterclient *client, struct evpt_peer *peer,
                                    int code, const char *text);
/* Answers everything in session2context with the code. `written`: bytes that the connection
 * had taken: what ends behind them has not reached the peer whole, and so was not executed. */
void evpt_clusterclient_fail_sent(struct evpt_clusterclient *client, struct evpt_peer *peer,
                                  int code, uint64_t written, const char *text);
/* The connection has gone: counts the sends that it had not taken whole as lost. */
void evpt_clusterclient_lose_sends(struct evpt_clusterclient *client, struct evpt_peer *peer,
                                   uint64_t written);
/* Frees a context by its (unlinked) list node, at the very end. */
void evpt_clusterclient_drop_context(struct evpt_clusterclient *client, struct evpt_list *node);

#endif
