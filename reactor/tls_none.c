/* evpt built without TLS: see tls.h. */
#include "reactor/tls.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>

int evpt_tls_new(struct evpt_tls **ret_tls, bool verify_name, evpt_tls_knows_fn knows, void *user)
{
    return -ENOTSUP;
}

void evpt_tls_free(struct evpt_tls *tls)
{
    assert(!tls);
}

int evpt_tls_load(struct evpt_tls *tls, const struct evpt_tls_files *files,
                  char text[EVPT_TLS_TEXT_SIZE])
{
    snprintf(text, EVPT_TLS_TEXT_SIZE, "this evpt was built without TLS");
    return -ENOTSUP;
}

int evpt_tls_connect(struct evpt_tls *tls, int fd, const char *peer,
                     struct evpt_transport **ret_transport)
{
    return -ENOTSUP;
}

int evpt_tls_accept(struct evpt_tls *tls, int fd, struct evpt_transport **ret_transport)
{
    return -ENOTSUP;
}

void evpt_tls_set_key_records(struct evpt_tls *tls, uint64_t records)
{
}
