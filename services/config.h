/* The configuration of a node (SPEC section 2), checked and complete. Plain data; strings belong to
 * it. */
#ifndef EVPT_SERVICES_CONFIG_H
#define EVPT_SERVICES_CONFIG_H

#include "reactor/sys.h"

enum evpt_log_level { EVPT_LOG_DEBUG, EVPT_LOG_INFO, EVPT_LOG_WARN, EVPT_LOG_ERROR };

struct evpt_config_service {
    char *script; /* "room" */
    char *name;   /* registered under this name; the script's by default */
    /* The arguments as one MessagePack array. */
    uint8_t *args;
    uint32_t args_size;
};

struct evpt_config {
    char *file;         /* path of evpt.lua; NULL: built-in defaults */
    char *clustername;  /* path of the node list, relative to the file's folder resolved */
    char *path, *cpath; /* templates, likewise resolved */
    unsigned workers;
    struct evpt_config_service *services;
    size_t service_count;
    struct {
        enum evpt_log_level level;
        char *file; /* NULL: stderr */
        bool json;
    } log;
    char *admin;              /* with the node's name put in; NULL: none */
    struct evpt_addr metrics; /* of the HTTP server; size 0: none */
    struct {
        bool on;
        char *cert, *key, *ca; /* with the node's name put in */
        bool verify_name;
        uint32_t handshakes_max, handshakes_per_address_max;
    } tls;
    struct {
        uint32_t call_timeout_ms, connect_timeout_ms, heartbeat_ms;
        uint32_t message_max; /* bytes */
        uint32_t pending_max, cache_max;
        size_t send_buffer_max; /* bytes */
    } cluster;
    uint32_t mailbox_max;
    size_t lua_memory_max; /* bytes; 0: no limit */
    uint32_t stop_timeout_ms;
};

/* NULL and zeroed are fine. */
void evpt_config_fini(struct evpt_config *config);

#endif
