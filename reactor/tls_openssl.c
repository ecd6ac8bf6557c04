/* tls.h on OpenSSL 3, the one file that knows it (tests/rules/includes.py).
 *
 * OpenSSL reads and writes through one BIO of ours.
 *
 * Writing: the BIO never blocks. What the socket does not take goes into a stash of the connection,
 * which is empty as a rule. So a record is encrypted once, whatever the socket does, and reading
 * never gets stuck because OpenSSL has something to say. The bytes of the caller's that are in a
 * stashed record are `owed`: they count as written when the stash has left.
 *
 * Reading: during the handshake the BIO reads from the socket just what OpenSSL asks for, which is
 * never more than a record; the bytes behind the handshake stay in the socket. From then on one
 * read of the socket goes into a buffer that all connections of the loop share, and OpenSSL
 * decrypts from it until it is empty. Half a record that is left over lies in OpenSSL's own buffer,
 * which it frees when the record is complete (SSL_MODE_RELEASE_BUFFERS): an idle connection holds
 * none.
 *
 * OpenSSL allocates with malloc, past evpt_sys_alloc. It copes with refused memory by itself, and
 * what it tells us then is an error like any other.
 */
#include "reactor/tls.h"

#include "reactor/error.h"
#include "reactor/list.h"
#include "reactor/sys.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

enum {
    RECORD = 16384,         /* the most that TLS puts into one */
    IN_SIZE = 65536,        /* one read of the socket */
    RECORDS_PER_WRITE = 16, /* then it is somebody else's turn: 256 KiB */
    /* Records without data, one after the other: two tickets, a key update. More is a peer that
     * lets us derive keys for nothing. */
    CHATTER_MAX = 32,
    CHAIN_MAX = 8 /* certificates between a node's and the CA's */
};

/* RFC 8446, 5.5: at 2^24.5 full records AES-GCM wants another key. */
#define KEY_RECORDS (UINT64_C(1) << 23)

struct evpt_tls {
    SSL_CTX *ctx; /* NULL: nothing loaded yet */
    BIO_METHOD *method;
    evpt_tls_knows_fn knows;
    void *user;
    uint64_t key_records;
    bool verify_name;
    uint8_t in[IN_SIZE]; /* what was read from a socket, while it is decrypted */
    uint8_t out[RECORD]; /* pieces that go into one record */
};

struct tls {
    struct evpt_transport transport;
    struct evpt_tls *tls;
    SSL *ssl;
    int fd;
    int io_error; /* the socket's, or ours, while OpenSSL only knows that there is one */
    int end;      /* what a read returns from now on, where transport.ended */
    bool is_client, established;
    bool heard; /* data have come from the peer */
    const uint8_t *in; /* what is still to be decrypted of tls->in */
    size_t in_size;
    size_t handshake_in; /* bytes read during the handshake */
    unsigned chatter;    /* records without data, one after the other */
    uint64_t records;    /* written with the present key */
    uint8_t *stash;      /* encrypted, and not taken by the socket; NULL: nothing */
    size_t stash_at, stash_size, stash_room;
    size_t owed;
};

static struct tls *tls_of(const struct evpt_transport *transport)
{
    return EVPT_CONTAINER_OF(transport, struct tls, transport);
}

/* ---- the socket's side ---- */

static bool put_into_stash(struct tls *t, const void *bytes, size_t size)
{
    if (size > t->stash_room - t->stash_size) {
        size_t room = t->stash_size + size;
        uint8_t *stash = evpt_sys_realloc(t->stash, room);
        if (!stash) {
            t->io_error = -ENOMEM;
            return false;
        }
        t->stash = stash;
        t->stash_room = room;
    }
    memcpy(t->stash + t->stash_size, bytes, size);
    t->stash_size += size;
    t->transport.pending = true;
    return true;
}

static void drop_stash(struct tls *t)
{
    evpt_sys_free(t->stash);
    t->stash = NULL;
    t->stash_at = t->stash_size = t->stash_room = 0;
    t->transport.pending = false;
}

/* 0 also where some of it still waits. */
static int write_stash(struct tls *t)
{
    if (!t->transport.pending)
        return 0;
    ssize_t sent = evpt_sys_write(t->fd, t->stash + t->stash_at, t->stash_size - t->stash_at);
    if (sent < 0)
        return sent == -EAGAIN ? 0 : (int)sent;
    t->stash_at += (size_t)sent;
    if (t->stash_at == t->stash_size)
        drop_stash(t);
    return 0;
}

static int bio_write(BIO *bio, const char *bytes, int size)
{
    struct tls *t = BIO_get_data(bio);
    ssize_t sent = t->transport.pending ? 0 : evpt_sys_write(t->fd, bytes, (size_t)size);
    if (sent == -EAGAIN)
        sent = 0;
    if (sent < 0) {
        t->io_error = (int)sent;
        return -1;
    }
    size_t rest = (size_t)size - (size_t)sent;
    return rest == 0 || put_into_stash(t, bytes + sent, rest) ? size : -1;
}

static ssize_t read_handshake(struct tls *t, char *bytes, size_t size)
{
    if (t->handshake_in + size > EVPT_TRANSPORT_HANDSHAKE_MAX) {
        snprintf(t->transport.reason, sizeof(t->transport.reason),
                 "more than %d bytes before it is known who it is", EVPT_TRANSPORT_HANDSHAKE_MAX);
        return -EVPT_ELIMIT;
    }
    ssize_t got = evpt_sys_read(t->fd, bytes, size);
    if (got > 0)
        t->handshake_in += (size_t)got;
    return got == 0 ? -EVPT_EEOF : got;
}

static ssize_t take_in(struct tls *t, char *bytes, size_t size)
{
    if (t->in_size == 0)
        return -EAGAIN;
    if (size > t->in_size)
        size = t->in_size;
    memcpy(bytes, t->in, size);
    t->in += size;
    t->in_size -= size;
    return (ssize_t)size;
}

static int bio_read(BIO *bio, char *bytes, int size)
{
    struct tls *t = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    ssize_t got =
        t->established ? take_in(t, bytes, (size_t)size) : read_handshake(t, bytes, (size_t)size);
    if (got == -EAGAIN)
        BIO_set_retry_read(bio);
    else if (got < 0)
        t->io_error = (int)got;
    return got < 0 ? -1 : (int)got;
}

static long bio_ctrl(BIO *bio, int command, long number, void *pointer)
{
    return command == BIO_CTRL_FLUSH; /* it has left, or waits in the stash */
}

/* ---- what went wrong ---- */

static void set_reason(struct tls *t, const char *what, const char *detail)
{
    snprintf(t->transport.reason, sizeof(t->transport.reason), "%s%s%s", what, detail ? ": " : "",
             detail ? detail : "");
}

/* The alerts that answer a certificate: the peer has not looked at anything that was sent behind
 * it. */
static bool is_about_certificate(int alert)
{
    return (alert >= SSL_AD_BAD_CERTIFICATE && alert <= SSL_AD_CERTIFICATE_UNKNOWN) ||
           alert == SSL_AD_UNKNOWN_CA || alert == SSL_AD_ACCESS_DENIED ||
           alert == SSL_AD_DECRYPT_ERROR || alert == SSL_AD_CERTIFICATE_REQUIRED;
}

static int alert_of(unsigned long error)
{
    int reason = ERR_GET_REASON(error);
    return ERR_GET_LIB(error) == ERR_LIB_SSL && reason > SSL_AD_REASON_OFFSET
               ? reason - SSL_AD_REASON_OFFSET
               : -1;
}

/* The words for a certificate that was not accepted here. */
static void say_verify(struct tls *t, long result)
{
    if (result == X509_V_ERR_HOSTNAME_MISMATCH && t->is_client)
        snprintf(t->transport.reason, sizeof(t->transport.reason),
                 "the peer's certificate is not %s's", t->transport.peer);
    else if (result == X509_V_ERR_HOSTNAME_MISMATCH)
        set_reason(t, "no name in the peer's certificate is in the node list", NULL);
    else
        set_reason(t, "the peer's certificate", X509_verify_cert_error_string(result));
}

/* The code for what an OpenSSL call has just failed with; the words go into `reason`. */
static int explain(struct tls *t)
{
    unsigned long error = ERR_peek_error();
    int alert = alert_of(error);
    long verified = SSL_get_verify_result(t->ssl);
    if (t->io_error == -EVPT_EEOF) {
        set_reason(t, "closed by the peer in the TLS handshake", NULL);
        return -EVPT_EEOF;
    }
    if (t->io_error)
        return t->io_error;
    if (alert >= 0 && !t->heard && is_about_certificate(alert)) {
        set_reason(t, "the peer does not accept this node's certificate",
                   SSL_alert_desc_string_long(alert));
        return -EVPT_EDENIED;
    }
    if (verified != X509_V_OK) {
        say_verify(t, verified);
        return -EVPT_ETLS;
    }
    const char *text =
        alert >= 0 ? SSL_alert_desc_string_long(alert) : ERR_reason_error_string(error);
    set_reason(t,
               alert >= 0       ? "the peer ended TLS"
               : t->established ? "TLS failed"
                                : "the TLS handshake failed",
               text ? text : "no details");
    return -EVPT_ETLS;
}

/* From here on every read ends with it. */
static int fail(struct tls *t, int error)
{
    t->transport.ended = true;
    t->end = error;
    return error;
}

/* ---- names ---- */

typedef bool (*name_fn)(const char *name, size_t size, const void *user);

/* The first DNS name of a certificate that `fn` accepts, or NULL. It lives as long as *names. */
static const ASN1_STRING *find_name(X509 *cert, GENERAL_NAMES **ret_names, name_fn fn,
                                    const void *user)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
    *ret_names = names;
    for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
        if (name->type != GEN_DNS)
            continue;
        int size = ASN1_STRING_length(name->d.dNSName);
        const char *text = (const char *)ASN1_STRING_get0_data(name->d.dNSName);
        if (size > 0 && size <= EVPT_TRANSPORT_NAME_MAX && fn(text, (size_t)size, user))
            return name->d.dNSName;
    }
    return NULL;
}

static bool is_name(const char *name, size_t size, const void *user)
{
    return strlen(user) == size && memcmp(user, name, size) == 0;
}

static bool is_known(const char *name, size_t size, const void *user)
{
    const struct evpt_tls *tls = user;
    return !tls->knows || tls->knows(name, size, tls->user);
}

static bool has_name(X509 *cert, const char *name)
{
    GENERAL_NAMES *names;
    bool found = find_name(cert, &names, is_name, name) != NULL;
    GENERAL_NAMES_free(names);
    return found;
}

/* Whom a certificate that a CA of ours has signed belongs to: peer, or somebody that we know. */
static bool take_name(struct tls *t, X509 *cert)
{
    if (t->is_client)
        return has_name(cert, t->transport.peer);
    GENERAL_NAMES *names;
    const ASN1_STRING *name = find_name(cert, &names, is_known, t->tls);
    if (name)
        snprintf(t->transport.peer, sizeof(t->transport.peer), "%.*s", ASN1_STRING_length(name),
                 (const char *)ASN1_STRING_get0_data(name));
    GENERAL_NAMES_free(names);
    return name != NULL;
}

/* In place of OpenSSL's own check, which it begins with: names are ours. */
static int verify(X509_STORE_CTX *store, void *user)
{
    const struct evpt_tls *tls = user;
    SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
    struct tls *t = SSL_get_app_data(ssl);
    if (X509_verify_cert(store) != 1)
        return 0;
    if (!tls->verify_name || take_name(t, X509_STORE_CTX_get0_cert(store)))
        return 1;
    X509_STORE_CTX_set_error(store, X509_V_ERR_HOSTNAME_MISMATCH);
    return 0;
}

static bool op_speaks_for(const struct evpt_transport *transport, const char *name)
{
    X509 *cert = SSL_get0_peer_certificate(tls_of(transport)->ssl);
    return cert && has_name(cert, name);
}

/* ---- the transport ---- */

static int op_handshake(struct evpt_transport *transport)
{
    struct tls *t = tls_of(transport);
    int error = write_stash(t);
    if (error)
        return error;
    ERR_clear_error();
    int done = SSL_do_handshake(t->ssl);
    if (done != 1 && SSL_get_error(t->ssl, done) != SSL_ERROR_WANT_READ)
        return fail(t, explain(t));
    if (done != 1 || transport->pending)
        return -EAGAIN;
    t->established = true;
    return 0;
}

/* Decrypts what is in tls->in. A count, 0 where nothing came out of it. */
static size_t decrypt(struct tls *t, uint8_t *to, size_t room)
{
    size_t total = 0;
    while (!t->transport.ended) {
        size_t got;
        assert(total < room);
        ERR_clear_error();
        if (SSL_read_ex(t->ssl, to + total, room - total, &got)) {
            total += got;
            t->heard = true;
            t->chatter = 0;
            continue;
        }
        int what = SSL_get_error(t->ssl, 0);
        if (what == SSL_ERROR_ZERO_RETURN) {
            (void)fail(t, 0);
        } else if (what != SSL_ERROR_WANT_READ) {
            (void)fail(t, explain(t));
        } else if (t->in_size == 0) {
            break;
        } else if (++t->chatter > CHATTER_MAX) { /* it returns after each record without data */
            set_reason(t, "too many TLS records without data", NULL);
            (void)fail(t, -EVPT_EPROTOCOL);
        }
    }
    t->in_size = 0; /* the buffer is everybody's */
    return total;
}

static ssize_t op_read(struct evpt_transport *transport, void *buffer, size_t size)
{
    struct tls *t = tls_of(transport);
    assert(size >= EVPT_TRANSPORT_READ_MIN);
    transport->more = false;
    if (transport->ended)
        return t->end;
    ssize_t got = evpt_sys_read(t->fd, t->tls->in, IN_SIZE);
    if (got == 0) {
        set_reason(t, "the connection ended without TLS's close_notify", NULL);
        got = -EVPT_ETRUNCATED;
    }
    if (got < 0)
        return got == -EAGAIN ? got : fail(t, (int)got);
    t->in = t->tls->in;
    t->in_size = (size_t)got;
    size_t total = decrypt(t, buffer, size);
    transport->more = got == IN_SIZE;
    if (total > 0)
        return (ssize_t)total;
    return transport->ended ? t->end : -EAGAIN;
}

/* A cursor over the caller's bytes. */
struct cursor {
    const struct iovec *vec;
    int count;
    size_t at; /* in the first of them */
};

/* At most a record's worth: in place where they lie together, else side by side in `out`. */
static const uint8_t *next_record(struct cursor *c, uint8_t *out, size_t *ret_size)
{
    size_t size = 0;
    *ret_size = 0;
    while (c->count > 0 && size < RECORD) {
        const uint8_t *bytes = (const uint8_t *)c->vec->iov_base + c->at;
        size_t left = c->vec->iov_len - c->at, piece = left < RECORD - size ? left : RECORD - size;
        c->at += piece;
        if (piece == left) {
            c->vec++;
            c->count--;
            c->at = 0;
        }
        if (size == 0 && (piece == RECORD || c->count == 0)) {
            *ret_size = piece;
            return bytes;
        }
        memcpy(out + size, bytes, piece);
        size += piece;
    }
    *ret_size = size;
    return out;
}

static void skip(struct cursor *c, size_t size)
{
    while (c->count > 0 && size >= c->vec->iov_len - c->at) {
        size -= c->vec->iov_len - c->at;
        c->vec++;
        c->count--;
        c->at = 0;
    }
    c->at += size;
}

static int write_record(struct tls *t, const void *bytes, size_t size)
{
    size_t written;
    ERR_clear_error();
    if (++t->records > t->tls->key_records) {
        t->records = 1;
        if (!SSL_key_update(t->ssl, SSL_KEY_UPDATE_NOT_REQUESTED))
            return explain(t);
    }
    return SSL_write_ex(t->ssl, bytes, size, &written) ? 0 : explain(t);
}

static ssize_t op_write(struct evpt_transport *transport, const struct iovec *vec, int count)
{
    struct tls *t = tls_of(transport);
    struct cursor cursor = {vec, count, 0};
    int error = transport->ended && t->end < 0 ? t->end : write_stash(t);
    if (error || transport->pending)
        return error ? error : -EAGAIN;
    size_t done = t->owed;
    skip(&cursor, done);
    t->owed = 0;
    for (int i = 0; i < RECORDS_PER_WRITE && !transport->pending; i++) {
        size_t size;
        const uint8_t *bytes = next_record(&cursor, t->tls->out, &size);
        if (size == 0)
            break;
        error = write_record(t, bytes, size);
        if (error)
            return error;
        if (transport->pending)
            t->owed = size;
        else
            done += size;
    }
    return done == 0 && transport->pending ? -EAGAIN : (ssize_t)done;
}

static void op_shutdown(struct evpt_transport *transport)
{
    struct tls *t = tls_of(transport);
    if (!t->established || (transport->ended && t->end != 0))
        return; /* an alert has said why, or there is nobody */
    if (SSL_get_shutdown(t->ssl) & SSL_SENT_SHUTDOWN)
        return;
    ERR_clear_error();
    (void)SSL_shutdown(t->ssl); /* a failure means that the connection is gone already */
}

static void op_free(struct evpt_transport *transport)
{
    struct tls *t = tls_of(transport);
    SSL_free(t->ssl);
    evpt_sys_free(t->stash);
    evpt_sys_free(t);
}

static const struct evpt_transport_ops ops = {
    .handshake = op_handshake,
    .read = op_read,
    .write = op_write,
    .shutdown = op_shutdown,
    .speaks_for = op_speaks_for,
    .free = op_free,
};

/* Whose failures op_free cleans up. */
static bool set_up(struct tls *t)
{
    t->ssl = SSL_new(t->tls->ctx);
    BIO *bio = t->ssl ? BIO_new(t->tls->method) : NULL;
    if (!bio)
        return false;
    BIO_set_data(bio, t);
    BIO_set_init(bio, 1);
    SSL_set_bio(t->ssl, bio, bio);
    SSL_set_app_data(t->ssl, t);
    if (t->is_client)
        SSL_set_connect_state(t->ssl);
    else
        SSL_set_accept_state(t->ssl);
    return true;
}

static int new_transport(struct evpt_tls *tls, int fd, const char *peer,
                         struct evpt_transport **ret_transport)
{
    assert(tls->ctx);
    struct tls *t = evpt_sys_zalloc(sizeof(*t));
    if (!t)
        return -ENOMEM;
    t->transport.ops = &ops;
    t->transport.names_proved = tls->verify_name;
    t->tls = tls;
    t->fd = fd;
    t->is_client = peer != NULL;
    if (peer && tls->verify_name)
        snprintf(t->transport.peer, sizeof(t->transport.peer), "%s", peer);
    if (!set_up(t)) {
        op_free(&t->transport);
        return -ENOMEM;
    }
    *ret_transport = &t->transport;
    return 0;
}

int evpt_tls_connect(struct evpt_tls *tls, int fd, const char *peer,
                     struct evpt_transport **ret_transport)
{
    assert(peer);
    return new_transport(tls, fd, peer, ret_transport);
}

int evpt_tls_accept(struct evpt_tls *tls, int fd, struct evpt_transport **ret_transport)
{
    return new_transport(tls, fd, NULL, ret_transport);
}

/* ---- files ---- */

/* A problem with a file: in words, and as a code. */
__attribute__((format(printf, 2, 3))) static int problem(char *text, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(text, EVPT_TLS_TEXT_SIZE, format, args);
    va_end(args);
    return -EVPT_ETLS;
}

static int problem_of_openssl(char *text, const char *path, const char *what)
{
    const char *reason = ERR_reason_error_string(ERR_peek_error());
    return problem(text, "%s: %s: %s", path, what, reason ? reason : "out of memory");
}

/* The file as something that OpenSSL reads from. NULL: `text` says why not, *ret_error. */
static BIO *open_file(const char *path, char **ret_bytes, size_t *ret_size, char *text,
                      int *ret_error)
{
    int error = evpt_sys_file_read(path, EVPT_TLS_FILE_MAX, ret_bytes, ret_size);
    if (error) {
        (void)problem(text, "%s: %s", path, evpt_strerror(error));
        *ret_error = error;
        return NULL;
    }
    BIO *bio = BIO_new_mem_buf(*ret_bytes, (int)*ret_size);
    if (!bio) {
        evpt_sys_free(*ret_bytes);
        *ret_error = -ENOMEM;
        (void)problem(text, "%s: out of memory", path);
    }
    return bio;
}

/* A node has nobody to ask for a password. */
static int no_password(char *buffer, int size, int writing, void *user)
{
    return -1;
}

/* The next certificate of a file; NULL: there is none, or (an error) it is damaged. */
static X509 *next_cert(BIO *bio, bool *ret_damaged)
{
    ERR_clear_error();
    X509 *cert = PEM_read_bio_X509(bio, NULL, no_password, NULL);
    *ret_damaged = !cert && ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE;
    return cert;
}

static int check_own(X509 *cert, const struct evpt_tls_files *files, char *text)
{
    if (X509_cmp_current_time(X509_get0_notAfter(cert)) <= 0)
        return problem(text, "%s: the certificate has expired", files->cert);
    if (files->name && !has_name(cert, files->name))
        return problem(text, "%s: the certificate does not name %s (as DNS in subjectAltName)",
                       files->cert, files->name);
    return 0;
}

/* The first certificate of the file is the node's own, the others lead from it to the CA. */
static int take_certs(SSL_CTX *ctx, BIO *bio, const struct evpt_tls_files *files, char *text)
{
    bool damaged;
    int count = 0, error = 0;
    X509 *cert;
    while (!error && (cert = next_cert(bio, &damaged)) != NULL) {
        if (count++ == 0)
            error = check_own(cert, files, text);
        else if (count > CHAIN_MAX)
            error = problem(text, "%s: more than %d certificates", files->cert, CHAIN_MAX);
        if (!error && !(count == 1 ? SSL_CTX_use_certificate(ctx, cert)
                                   : (int)SSL_CTX_add1_chain_cert(ctx, cert)))
            error = problem_of_openssl(text, files->cert, "cannot be used");
        X509_free(cert);
    }
    if (!error && damaged)
        error = problem_of_openssl(text, files->cert, "a certificate cannot be read");
    if (!error && count == 0)
        error = problem(text, "%s: expected a certificate (PEM)", files->cert);
    return error;
}

static int take_key(SSL_CTX *ctx, BIO *bio, const struct evpt_tls_files *files, char *text)
{
    ERR_clear_error();
    EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, no_password, NULL);
    if (!key && ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_BAD_PASSWORD_READ)
        return problem(text, "%s: the key is encrypted, and a node cannot ask for a password",
                       files->key);
    if (!key)
        return problem(text, "%s: expected a private key (PEM)", files->key);
    int used = SSL_CTX_use_PrivateKey(ctx, key);
    EVP_PKEY_free(key);
    if (used)
        return 0;
    if (ERR_GET_REASON(ERR_peek_error()) == X509_R_KEY_VALUES_MISMATCH)
        return problem(text, "%s: is not the key of the certificate in %s", files->key,
                       files->cert);
    return problem_of_openssl(text, files->key, "cannot be used");
}

static int take_ca(SSL_CTX *ctx, BIO *bio, const struct evpt_tls_files *files, char *text)
{
    bool damaged;
    int count = 0, error = 0;
    X509 *cert;
    X509_STORE *store = SSL_CTX_get_cert_store(ctx);
    while (!error && (cert = next_cert(bio, &damaged)) != NULL) {
        count++;
        if (!X509_STORE_add_cert(store, cert) || !SSL_CTX_add_client_CA(ctx, cert))
            error = problem_of_openssl(text, files->ca, "cannot be used");
        X509_free(cert);
    }
    if (!error && damaged)
        error = problem_of_openssl(text, files->ca, "a certificate cannot be read");
    if (!error && count == 0)
        error = problem(text, "%s: expected certificates (PEM)", files->ca);
    return error;
}

typedef int (*take_fn)(SSL_CTX *ctx, BIO *bio, const struct evpt_tls_files *files, char *text);

static int take_file(SSL_CTX *ctx, const char *path, take_fn take,
                     const struct evpt_tls_files *files, char *text)
{
    char *bytes;
    size_t size;
    int error = 0;
    BIO *bio = open_file(path, &bytes, &size, text, &error);
    if (!bio)
        return error;
    error = take(ctx, bio, files, text);
    BIO_free(bio);
    OPENSSL_cleanse(bytes, size); /* one of them is a key */
    evpt_sys_free(bytes);
    return error;
}

/* What holds whatever the files say. */
static bool set_rules(struct evpt_tls *tls, SSL_CTX *ctx)
{
    SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_clear_mode(ctx, SSL_MODE_AUTO_RETRY); /* see decrypt */
    SSL_CTX_set_read_ahead(ctx, 0);               /* see the top */
    SSL_CTX_set_max_cert_list(ctx, EVPT_TRANSPORT_HANDSHAKE_MAX);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    SSL_CTX_set_verify_depth(ctx, CHAIN_MAX);
    SSL_CTX_set_cert_verify_callback(ctx, verify, tls);
    return SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) &&
           SSL_CTX_set_max_proto_version(ctx, TLS1_3_VERSION) && SSL_CTX_set_num_tickets(ctx, 0);
}

int evpt_tls_load(struct evpt_tls *tls, const struct evpt_tls_files *files,
                  char text[EVPT_TLS_TEXT_SIZE])
{
    ERR_clear_error();
    SSL_CTX *ctx = SSL_CTX_new(TLS_method());
    if (!ctx || !set_rules(tls, ctx)) {
        SSL_CTX_free(ctx);
        return problem_of_openssl(text, "OpenSSL", "cannot be set up");
    }
    int error = take_file(ctx, files->cert, take_certs, files, text);
    if (!error)
        error = take_file(ctx, files->key, take_key, files, text);
    if (!error)
        error = take_file(ctx, files->ca, take_ca, files, text);
    if (error) {
        SSL_CTX_free(ctx);
        return error;
    }
    SSL_CTX_free(tls->ctx); /* connections have a reference of their own */
    tls->ctx = ctx;
    return 0;
}

/* ---- life cycle ---- */

int evpt_tls_new(struct evpt_tls **ret_tls, bool verify_name, evpt_tls_knows_fn knows, void *user)
{
    struct evpt_tls *tls = evpt_sys_zalloc(sizeof(*tls));
    if (!tls)
        return -ENOMEM;
    tls->verify_name = verify_name;
    tls->knows = knows;
    tls->user = user;
    tls->key_records = KEY_RECORDS;
    tls->method = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "evpt");
    if (!tls->method || !BIO_meth_set_write(tls->method, bio_write) ||
        !BIO_meth_set_read(tls->method, bio_read) || !BIO_meth_set_ctrl(tls->method, bio_ctrl)) {
        evpt_tls_free(tls);
        return -ENOMEM;
    }
    *ret_tls = tls;
    return 0;
}

void evpt_tls_free(struct evpt_tls *tls)
{
    if (!tls)
        return;
    SSL_CTX_free(tls->ctx);
    BIO_meth_free(tls->method);
    evpt_sys_free(tls);
}

void evpt_tls_set_key_records(struct evpt_tls *tls, uint64_t records)
{
    tls->key_records = records;
}
