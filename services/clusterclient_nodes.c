/* The node list's side of clusterclient: which peers there are, and what changes when the list
 * does. */
#include "services/clusterclient_private.h"

#include "reactor/error.h"
#include "services/hash.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define PEER_TABLE_MIN 16

static bool same_addr(const struct evpt_addr *a, const struct evpt_addr *b)
{
    char x[EVPT_ADDR_TEXT_SIZE], y[EVPT_ADDR_TEXT_SIZE];
    if (!a->size || !b->size)
        return a->size == b->size;
    return strcmp(evpt_addr_format(a, x, sizeof(x)), evpt_addr_format(b, y, sizeof(y))) == 0;
}

/* What a new list does to one peer: nothing, or its name goes into one list of the difference. */
enum change { KEPT, ADDED, REMOVED, CHANGED };

static enum change compare(const struct evpt_peer *peer, const struct evpt_node_entry *entry)
{
    if (!peer || !peer->listed)
        return entry ? ADDED : KEPT;
    if (!entry)
        return REMOVED;
    return same_addr(&peer->addr, &entry->addr) ? KEPT : CHANGED;
}

/* Answers everything that waits for the peer, and lets go of its connection. */
static void drop_connection(struct evpt_clusterclient *client, struct evpt_peer *peer,
                            enum evpt_connect_status status, const char *text)
{
    struct evpt_session *session = peer->session;
    uint64_t written = 0;
    if (peer->status == EVPT_STATUS_CONNECTING)
        evpt_cluster_mgr_cancel(client->mgr, peer);
    if (session) {
        written = evpt_session_written(session);
        evpt_session_set_tag(session, NULL);
        evpt_session_close(session, false, text);
        peer->session = NULL;
        peer->takes_over = true;
        peer->disconnects++;
        evpt_timer_stop(evpt_loop_wheel(client->loop), &peer->hello_timer);
    }
    peer->failures = 0;
    peer->retry_at_ns = 0;
    peer->message_max = 0; /* whoever is there next may be another */
    if (peer->status != status)
        evpt_clusterclient_set_status(client, peer, status, text);
    evpt_clusterclient_lose_sends(client, peer, written);
    evpt_clusterclient_fail_sent(client, peer, EVPT_CODE_DISCONNECTED, written, text);
    evpt_clusterclient_fail_cached(client, peer, EVPT_CODE_DISCONNECTED, text);
}

static void apply_change(struct evpt_clusterclient *client, struct evpt_peer *peer,
                         const struct evpt_node_entry *entry, enum change change)
{
    bool up = entry && entry->addr.size;
    char text[128];
    snprintf(text, sizeof(text), "the node list %s %s",
             change == REMOVED ? "no longer has" : "has changed", peer->name);
    if (change == REMOVED || change == CHANGED)
        drop_connection(client, peer, up ? EVPT_STATUS_DISCONNECT : EVPT_STATUS_DOWN, text);
    pthread_mutex_lock(&client->lock);
    peer->listed = entry != NULL;
    peer->addr = entry ? entry->addr : (struct evpt_addr){0};
    pthread_mutex_unlock(&client->lock);
    if (up && peer->status == EVPT_STATUS_DOWN)
        evpt_clusterclient_set_status(client, peer, EVPT_STATUS_DISCONNECT, "");
    atomic_fetch_add_explicit(&client->version, 1, memory_order_release);
}

static struct evpt_peer *new_peer(const struct evpt_clusterclient *client, const char *name)
{
    struct evpt_peer *peer = evpt_sys_zalloc(sizeof(*peer));
    if (!peer)
        return NULL;
    snprintf(peer->name, sizeof(peer->name), "%s", name);
    peer->status = EVPT_STATUS_DOWN;
    peer->takes_over = client->forgot_connections; /* it may have been there before */
    evpt_list_init(&peer->sent);
    evpt_list_init(&peer->cached);
    return peer;
}

static void put_into_table(struct evpt_peer **table, uint32_t capacity, struct evpt_peer *peer)
{
    uint32_t i = evpt_hash(peer->name, strlen(peer->name)) & (capacity - 1);
    while (table[i])
        i = (i + 1) & (capacity - 1);
    table[i] = peer;
}

/* Room for so many peers in both arrays. */
static int reserve_peers(struct evpt_clusterclient *client, uint32_t count)
{
    if (count <= client->peer_capacity)
        return 0;
    uint32_t table_capacity = PEER_TABLE_MIN;
    while (table_capacity < count * 2)
        table_capacity *= 2;
    struct evpt_peer **peers = evpt_sys_alloc(count * sizeof(struct evpt_peer *));
    struct evpt_peer **table = evpt_sys_zalloc(table_capacity * sizeof(struct evpt_peer *));
    if (!peers || !table) {
        evpt_sys_free(peers);
        evpt_sys_free(table);
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < client->peer_count; i++) {
        peers[i] = client->peers[i];
        put_into_table(table, table_capacity, peers[i]);
    }
    pthread_mutex_lock(&client->lock);
    struct evpt_peer **old_peers = client->peers, **old_table = client->peer_table;
    client->peers = peers;
    client->peer_capacity = count;
    client->peer_table = table;
    client->table_capacity = table_capacity;
    pthread_mutex_unlock(&client->lock);
    evpt_sys_free(old_peers);
    evpt_sys_free(old_table);
    return 0;
}

/* Makes peers, not listed yet, for all names of the list that are new. */
static int make_peers(struct evpt_clusterclient *client, const struct evpt_node_list *list)
{
    int error = reserve_peers(client, client->peer_count + (uint32_t)list->count);
    if (error)
        return error;
    for (size_t i = 0; i < list->count; i++) {
        const char *name = list->entries[i].name;
        if (evpt_clusterclient_find_peer(client, name, strlen(name)))
            continue;
        struct evpt_peer *peer = new_peer(client, name);
        if (!peer) /* those already made are not listed, and so are there for nobody */
            return -ENOMEM;
        pthread_mutex_lock(&client->lock);
        client->peers[client->peer_count++] = peer;
        put_into_table(client->peer_table, client->table_capacity, peer);
        pthread_mutex_unlock(&client->lock);
    }
    return 0;
}

/* Peers that an earlier list has removed go: where names are made anew for each machine that comes
 * and goes, they would pile up. When they were removed, what waited for them was answered and their
 * connection let go of, so nobody knows them any more. */
static void forget_unlisted(struct evpt_clusterclient *client)
{
    uint32_t kept = 0;
    pthread_mutex_lock(&client->lock);
    for (uint32_t i = 0; i < client->peer_count; i++) {
        struct evpt_peer *peer = client->peers[i];
        if (peer->listed) {
            client->peers[kept++] = peer;
        } else {
            client->forgot_connections |= peer->takes_over;
            evpt_sys_free(peer);
        }
    }
    if (kept < client->peer_count) {
        memset(client->peer_table, 0, client->table_capacity * sizeof(struct evpt_peer *));
        for (uint32_t i = 0; i < kept; i++)
            put_into_table(client->peer_table, client->table_capacity, client->peers[i]);
    }
    client->peer_count = kept;
    pthread_mutex_unlock(&client->lock);
}

int evpt_clusterclient_apply(struct evpt_clusterclient *client, const struct evpt_node_list *list,
                             struct evpt_node_diff *ret_diff)
{
    struct evpt_node_diff diff = {0};
    forget_unlisted(client);
    int error = make_peers(client, list);
    if (error)
        return error;
    size_t names = client->peer_count + 1u;
    const char **room = evpt_sys_alloc(3 * names * sizeof(*room));
    if (!room)
        return -ENOMEM;
    diff.added = room;
    diff.removed = room + names;
    diff.changed = room + 2 * names;
    for (uint32_t i = 0; i < client->peer_count; i++) {
        struct evpt_peer *peer = client->peers[i];
        const struct evpt_node_entry *entry = evpt_node_list_find(list, peer->name);
        enum change change = compare(peer, entry);
        if (change == KEPT)
            continue;
        if (change == ADDED)
            diff.added[diff.added_count++] = peer->name;
        else if (change == REMOVED)
            diff.removed[diff.removed_count++] = peer->name;
        else
            diff.changed[diff.changed_count++] = peer->name;
        apply_change(client, peer, entry, change);
    }
    *ret_diff = diff;
    return 0;
}

void evpt_node_diff_fini(struct evpt_node_diff *diff)
{
    evpt_sys_free(diff->added); /* the three arrays are one block */
    memset(diff, 0, sizeof(*diff));
}

/* ---- any thread ---- */

bool evpt_clusterclient_lookup(struct evpt_clusterclient *client, const char *name, size_t size,
                               struct evpt_addr *ret_addr, enum evpt_connect_status *ret_status)
{
    pthread_mutex_lock(&client->lock);
    const struct evpt_peer *peer = evpt_clusterclient_find_peer(client, name, size);
    bool listed = peer && peer->listed;
    if (listed) {
        if (ret_addr)
            *ret_addr = peer->addr;
        *ret_status = peer->status;
    }
    pthread_mutex_unlock(&client->lock);
    return listed;
}

void evpt_clusterclient_each(struct evpt_clusterclient *client, evpt_peer_each_fn fn, void *user)
{
    pthread_mutex_lock(&client->lock);
    for (uint32_t i = 0; i < client->peer_count; i++) {
        const struct evpt_peer *peer = client->peers[i];
        if (peer->listed)
            fn(peer->name, &peer->addr, peer->status, user);
    }
    pthread_mutex_unlock(&client->lock);
}

/* ---- life cycle ---- */

int evpt_clusterclient_init(struct evpt_clusterclient *client, struct evpt_scheduler *scheduler,
                            struct evpt_cluster_mgr *mgr, struct evpt_loop *loop,
                            struct evpt_log *log, const struct evpt_config *config)
{
    memset(client, 0, sizeof(*client));
    client->scheduler = scheduler;
    client->mgr = mgr;
    client->loop = loop;
    client->log = log;
    client->config = config;
    evpt_list_init(&client->spare);
    atomic_init(&client->version, 1);
    /* Not from 1: a peer that mixes up this incarnation's sessions with an earlier one's shows at
     * once. */
    evpt_sys_random(&client->next_session, sizeof(client->next_session));
    return pthread_mutex_init(&client->lock, NULL) == 0 ? 0 : -ENOMEM;
}

static void free_contexts(struct evpt_clusterclient *client, struct evpt_list *list)
{
    struct evpt_list *node;
    while ((node = evpt_list_pop_front(list)) != NULL)
        evpt_clusterclient_drop_context(client, node);
}

void evpt_clusterclient_fini(struct evpt_clusterclient *client)
{
    if (!client->scheduler)
        return;
    for (uint32_t i = 0; i < client->peer_count; i++) {
        free_contexts(client, &client->peers[i]->sent);
        free_contexts(client, &client->peers[i]->cached);
        evpt_timer_stop(evpt_loop_wheel(client->loop), &client->peers[i]->hello_timer);
        evpt_sys_free(client->peers[i]->send_ends);
        evpt_sys_free(client->peers[i]);
    }
    free_contexts(client, &client->spare);
    evpt_sys_free(client->peers);
    evpt_sys_free(client->peer_table);
    evpt_sys_free(client->session2context);
    pthread_mutex_destroy(&client->lock);
    memset(client, 0, sizeof(*client));
}
