/* TLS 1.3 with certificates on both sides, as a transport (transport.h).
 *
 * Certificates, the handshake and every byte of cryptography are OpenSSL's. It is known in
 * tls_openssl.c alone; evpt without it has tls_none.c, where every attempt fails with -ENOTSUP and
 * a text that says so.
 *
 * Each side shows a certificate that a CA of the file `ca` has signed. With `verify_name` it counts
 * for the names in its subjectAltName (DNS entries, compared exactly; no wildcards, and no common
 * name): a server has to bear the name that it was connected to by, and a client a name that
 * `knows` knows. TLS 1.3 only; no resumption, no tickets, no early data, no compression, no
 * renegotiation. Keys are renewed before a cipher has seen too much of one (RFC 8446, 5.5).
 *
 *     struct evpt_tls *tls;
 *     error = evpt_tls_new(&tls, true, knows, user);
 *     error = evpt_tls_load(tls, &files, text);      again whenever the files have changed
 *     error = evpt_tls_connect(tls, fd, "battle_1", &transport);
 *     ...
 *     evpt_tls_free(tls);                            after all its transports
 *
 * A struct evpt_tls and its transports belong to one loop, and share its buffers.
 */
#ifndef EVPT_REACTOR_TLS_H
#define EVPT_REACTOR_TLS_H

#include "reactor/transport.h"

#define EVPT_TLS_TEXT_SIZE 256
#define EVPT_TLS_FILE_MAX (1 << 20) /* bytes of a file with certificates or a key */

struct evpt_tls;

struct evpt_tls_files {
    const char *cert; /* PEM: this node's certificate, then those between it and the CA */
    const char *key;  /* PEM: its key, not encrypted */
    const char *ca;   /* PEM: the certificates that are trusted to sign */
    const char *name; /* what the certificate has to say; NULL: anything */
};

/* Is `name` (not terminated) a node of ours? */
typedef bool (*evpt_tls_knows_fn)(const char *name, size_t size, void *user);

/* Nothing can be done with it before a load. `knows` may be NULL: then every name is good. 0,
 * -ENOMEM, -ENOTSUP. */
int evpt_tls_new(struct evpt_tls **ret_tls, bool verify_name, evpt_tls_knows_fn knows, void *user);
/* NULL is fine. */
void evpt_tls_free(struct evpt_tls *tls);
/* Reads the files. What is connected keeps what it was connected with; all that comes later uses
 * the new ones. On an error (-errno of a file, -EVPT_ETLS, -ENOTSUP) the old ones stay, and `text`
 * names the file and what is wrong with it. */
int evpt_tls_load(struct evpt_tls *tls, const struct evpt_tls_files *files,
                  char text[EVPT_TLS_TEXT_SIZE]);

/* A transport for either end of a connection, about to begin its handshake. `peer`: who has to be
 * there. 0 or -ENOMEM. */
int evpt_tls_connect(struct evpt_tls *tls, int fd, const char *peer,
                     struct evpt_transport **ret_transport);
int evpt_tls_accept(struct evpt_tls *tls, int fd, struct evpt_transport **ret_transport);
/* For tests: the keys of what it will make are renewed after so many records. */
void evpt_tls_set_key_records(struct evpt_tls *tls, uint64_t records);

#endif
