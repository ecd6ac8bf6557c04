/* control: a pinned service on the cluster loop, through which Lua services drive it. Calls, each
 * with a reply:
 *
 *     listen()        starts listening on the node's address -> "ip:port"
 *     apply(list)     list = {name = "ip:port" | false}, already checked -> {added = {}, removed =
 * {}, changed = {}} observe(handle) that service is told of status changes from now on
 * (clusterclient.c, tell_observer) nodes()         -> {name = {ip=, port=, status=,
 * session2context=, requestCache=, queued=, ...}} stat()          -> {counter = number} drain() no
 * new requests from other nodes; answers when none is in progress any more refuse()        no new
 * requests to other nodes pending()       -> calls to other nodes that have no answer yet
 */
#ifndef EVPT_SERVICES_CONTROL_H
#define EVPT_SERVICES_CONTROL_H

#include "services/node.h"

/* A message for `control`; takes it over. The loop's thread. */
void evpt_control_message(struct evpt_node *node, struct evpt_message *message);
/* Something may have ended: answers a waiting `drain`. The loop's thread. */
void evpt_control_check_drain(struct evpt_node *node);

#endif
