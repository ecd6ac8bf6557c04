/* TLS as a transport: names, ends, records, keys, files. That it keeps a stream's contract is
 * tested by test_stream.c and test_stream_close.c over it. The hostile peer here is OpenSSL itself.
 */
#include "stream_side.h"
#include <openssl/ssl.h>
#include <unistd.h>

/* ---- two ends of ours ---- */

/* A pair of contexts with an end each: end 0 has accepted. */
struct pair {
    struct evpt_tls *tls[2];
    struct evpt_transport *ends[2];
    int fds[2];
};

static struct evpt_tls *load_tls(const char *cert_folder, const char *name, const char *ca_folder,
                                 bool verify_name, evpt_tls_knows_fn knows, void *user)
{
    const char *base = getenv("EVPT_TEST_CERTS");
    char cert[256], key[256], ca[256], text[EVPT_TLS_TEXT_SIZE];
    snprintf(cert, sizeof(cert), "%s/../%s/%s.crt", base, cert_folder, name);
    snprintf(key, sizeof(key), "%s/../%s/%s.key", base, cert_folder, name);
    snprintf(ca, sizeof(ca), "%s/../%s/ca.crt", base, ca_folder);
    struct evpt_tls_files files = {.cert = cert, .key = key, .ca = ca};
    struct evpt_tls *tls;
    ck_assert_int_eq(evpt_tls_new(&tls, verify_name, knows, user), 0);
    int error = evpt_tls_load(tls, &files, text);
    ck_assert_msg(error == 0, "%s", text);
    return tls;
}

static bool knows_far_only(const char *name, size_t size, void *user)
{
    return size == 3 && memcmp(name, "far", 3) == 0;
}

static bool knows_nobody(const char *name, size_t size, void *user)
{
    return false;
}

/* near has accepted, far has connected and expects `expected`. */
static void open_pair(struct pair *pair, struct evpt_tls *near, struct evpt_tls *far,
                      const char *expected)
{
    *pair = (struct pair){.tls = {near, far}};
    support_socketpair(pair->fds);
    ck_assert_int_eq(evpt_tls_accept(near, pair->fds[0], &pair->ends[0]), 0);
    ck_assert_int_eq(evpt_tls_connect(far, pair->fds[1], expected, &pair->ends[1]), 0);
}

static void open_friends(struct pair *pair)
{
    open_pair(pair, load_tls("certs", "near", "certs", true, knows_far_only, NULL),
              load_tls("certs", "far", "certs", true, NULL, NULL), "near");
    shake_hands(pair->ends);
}

static void free_pair(struct pair *pair)
{
    for (int i = 0; i < 2; i++) {
        evpt_transport_free(pair->ends[i]);
        evpt_tls_free(pair->tls[i]);
        evpt_sys_close(pair->fds[i]);
    }
}

static int step(struct pair *pair, int end)
{
    return pair->ends[end]->ops->handshake(pair->ends[end]);
}

static ssize_t read_end(struct pair *pair, int end, void *buffer, size_t size)
{
    static uint8_t room[EVPT_TRANSPORT_READ_MIN];
    ssize_t got = pair->ends[end]->ops->read(pair->ends[end], room, sizeof(room));
    ck_assert_int_le(got, (ssize_t)size);
    if (got > 0)
        memcpy(buffer, room, (size_t)got);
    return got;
}

static ssize_t write_end(struct pair *pair, int end, const void *bytes, size_t size)
{
    struct iovec vec = {(void *)bytes, size};
    return pair->ends[end]->ops->write(pair->ends[end], &vec, 1);
}

/* ---- who is there ---- */

START_TEST(test_both_ends_know_whom_they_speak_to)
{
    struct pair pair;
    open_friends(&pair);
    ck_assert_str_eq(pair.ends[0]->peer, "far");
    ck_assert_str_eq(pair.ends[1]->peer, "near");
    ck_assert(pair.ends[0]->names_proved);
    ck_assert(pair.ends[0]->ops->speaks_for(pair.ends[0], "far"));
    static const char *const others[] = {"near", "fa", "farr", "FAR", "", "*"};
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
        ck_assert_msg(!pair.ends[0]->ops->speaks_for(pair.ends[0], others[i]), "%s", others[i]);
    free_pair(&pair);
}
END_TEST

START_TEST(test_client_refuses_a_server_of_another_name)
{
    struct pair pair;
    open_pair(&pair, load_tls("certs", "near", "certs", true, NULL, NULL),
              load_tls("certs", "far", "certs", true, NULL, NULL), "far");
    ck_assert_int_eq(step(&pair, 1), -EAGAIN);
    ck_assert_int_eq(step(&pair, 0), -EAGAIN);
    ck_assert_int_eq(step(&pair, 1), -EVPT_ETLS);
    ck_assert_str_eq(pair.ends[1]->reason, "the peer's certificate is not far's");
    ck_assert_int_eq(step(&pair, 0), -EVPT_EDENIED);
    ck_assert_str_eq(pair.ends[0]->reason,
                     "the peer does not accept this node's certificate: bad certificate");
    free_pair(&pair);
}
END_TEST

/* The client has done its part by then, and learns it when it reads. */
static void assert_client_is_refused(struct pair *pair, const char *reason, const char *alert)
{
    char buffer[64], text[EVPT_TRANSPORT_REASON_SIZE];
    ck_assert_int_eq(step(pair, 1), -EAGAIN);
    ck_assert_int_eq(step(pair, 0), -EAGAIN);
    ck_assert_int_eq(step(pair, 1), 0);
    ck_assert_int_eq(write_end(pair, 1, "too early", 9), 9);
    ck_assert_int_eq(step(pair, 0), -EVPT_ETLS);
    ck_assert_str_eq(pair->ends[0]->reason, reason);
    ck_assert_int_eq(read_end(pair, 1, buffer, sizeof(buffer)), -EVPT_EDENIED);
    snprintf(text, sizeof(text), "the peer does not accept this node's certificate: %s", alert);
    ck_assert_str_eq(pair->ends[1]->reason, text);
}

START_TEST(test_server_refuses_a_client_that_it_does_not_know)
{
    struct pair pair;
    open_pair(&pair, load_tls("certs", "near", "certs", true, knows_nobody, NULL),
              load_tls("certs", "far", "certs", true, NULL, NULL), "near");
    assert_client_is_refused(&pair, "no name in the peer's certificate is in the node list",
                             "bad certificate");
    free_pair(&pair);
}
END_TEST

START_TEST(test_server_refuses_a_client_of_another_ca)
{
    struct pair pair;
    open_pair(&pair, load_tls("certs", "near", "certs", true, NULL, NULL),
              load_tls("stranger", "near", "certs", true, NULL, NULL), "near");
    assert_client_is_refused(
        &pair, "the peer's certificate: unable to get local issuer certificate", "unknown CA");
    free_pair(&pair);
}
END_TEST

START_TEST(test_without_verify_name_the_ca_alone_counts)
{
    struct pair pair;
    open_pair(&pair, load_tls("certs", "near", "certs", false, knows_nobody, NULL),
              load_tls("certs", "far", "certs", false, NULL, NULL), "somebody");
    shake_hands(pair.ends);
    ck_assert_str_eq(pair.ends[0]->peer, "");
    ck_assert(!pair.ends[0]->names_proved);
    free_pair(&pair);
    open_pair(&pair, load_tls("certs", "near", "certs", false, NULL, NULL),
              load_tls("stranger", "near", "certs", false, NULL, NULL), "near");
    assert_client_is_refused(
        &pair, "the peer's certificate: unable to get local issuer certificate", "unknown CA");
    free_pair(&pair);
}
END_TEST

/* ---- ends ---- */

START_TEST(test_announced_end_comes_behind_the_bytes)
{
    struct pair pair;
    char buffer[64];
    open_friends(&pair);
    ck_assert_int_eq(write_end(&pair, 1, "bye", 3), 3);
    pair.ends[1]->ops->shutdown(pair.ends[1]);
    ck_assert_int_eq(read_end(&pair, 0, buffer, sizeof(buffer)), 3);
    ck_assert(pair.ends[0]->ended); /* no event will come: the socket is open */
    ck_assert_int_eq(read_end(&pair, 0, buffer, sizeof(buffer)), 0);
    ck_assert_int_eq(write_end(&pair, 0, "answer", 6), 6); /* one direction only */
    ck_assert_int_eq(read_end(&pair, 1, buffer, sizeof(buffer)), 6);
    free_pair(&pair);
}
END_TEST

START_TEST(test_end_without_close_notify_is_a_truncation)
{
    struct pair pair;
    char buffer[64];
    open_friends(&pair);
    ck_assert_int_eq(write_end(&pair, 1, "and then", 8), 8);
    evpt_sys_close(pair.fds[1]);
    pair.fds[1] = -1;
    ck_assert_int_eq(read_end(&pair, 0, buffer, sizeof(buffer)), 8);
    ck_assert_int_eq(read_end(&pair, 0, buffer, sizeof(buffer)), -EVPT_ETRUNCATED);
    ck_assert_str_eq(pair.ends[0]->reason, "the connection ended without TLS's close_notify");
    free_pair(&pair);
}
END_TEST

START_TEST(test_damaged_record_ends_the_connection_behind_the_good_ones)
{
    static const char garbage[] = "\x17\x03\x03\x00\x20 thirty-two bytes that are not it";
    struct pair pair;
    char buffer[64];
    open_friends(&pair);
    ck_assert_int_eq(write_end(&pair, 1, "good", 4), 4);
    ck_assert_int_eq(evpt_sys_write(pair.fds[1], garbage, 37), 37);
    ck_assert_int_eq(read_end(&pair, 0, buffer, sizeof(buffer)), 4);
    ck_assert(pair.ends[0]->ended);
    ck_assert_int_eq(read_end(&pair, 0, buffer, sizeof(buffer)), -EVPT_ETLS);
    ck_assert_int_eq(write_end(&pair, 0, "x", 1), -EVPT_ETLS);
    free_pair(&pair);
}
END_TEST

/* ---- records and the socket ---- */

START_TEST(test_bytes_count_as_written_when_their_record_has_left)
{
    struct pair pair;
    static uint8_t bytes[40000], got[40000];
    char buffer[EVPT_TRANSPORT_READ_MIN];
    open_friends(&pair);
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(i * 7);
    size_t written = 0, read = 0, rounds = 0;
    support_limit_writes(1000);
    while (written < sizeof(bytes)) {
        ssize_t n = write_end(&pair, 1, bytes + written, sizeof(bytes) - written);
        ck_assert(n > 0 || n == -EAGAIN);
        ck_assert(n < 0 || pair.ends[1]->pending || written + (size_t)n == sizeof(bytes));
        written += n > 0 ? (size_t)n : 0;
        ssize_t m = read_end(&pair, 0, buffer, sizeof(buffer));
        ck_assert(m > 0 || m == -EAGAIN);
        if (m > 0)
            memcpy(got + read, buffer, (size_t)m);
        read += m > 0 ? (size_t)m : 0;
        ck_assert_uint_eq(read, written); /* neither more nor less than the peer can have */
        rounds++;
    }
    ck_assert_uint_gt(rounds, 35);
    ck_assert_mem_eq(got, bytes, sizeof(bytes));
    free_pair(&pair);
}
END_TEST

START_TEST(test_no_memory_for_what_the_socket_does_not_take_is_an_error)
{
    struct pair pair;
    open_friends(&pair);
    support_limit_writes(1);
    support_fail_allocation(1);
    ck_assert_int_eq(write_end(&pair, 1, "abc", 3), -ENOMEM);
    free_pair(&pair);
}
END_TEST

START_TEST(test_many_pieces_leave_as_one_record)
{
    struct pair pair;
    char buffer[64];
    open_friends(&pair);
    char pieces[] = "one two three";
    struct iovec vec[] = {{pieces, 4}, {pieces, 0}, {pieces + 4, 4}, {pieces + 8, 5}};
    support_reset_calls();
    ck_assert_int_eq(pair.ends[1]->ops->write(pair.ends[1], vec, 4), 13);
    ck_assert_uint_eq(support_calls.write, 1);
    ck_assert_int_eq(read_end(&pair, 0, buffer, sizeof(buffer)), 13);
    ck_assert_mem_eq(buffer, "one two three", 13);
    free_pair(&pair);
}
END_TEST

START_TEST(test_keys_are_renewed_after_so_many_records)
{
    struct pair pair;
    open_friends(&pair);
    evpt_tls_set_key_records(pair.tls[1], 3);
    support_reset_calls();
    for (int i = 0; i < 100; i++) {
        char buffer[64];
        ck_assert_int_eq(write_end(&pair, 1, &i, sizeof(i)), sizeof(i));
        ck_assert_int_eq(read_end(&pair, 0, buffer, sizeof(buffer)), sizeof(i));
        ck_assert_mem_eq(buffer, &i, sizeof(i));
    }
    ck_assert_uint_eq(support_calls.write, 100 + 33); /* the key updates are records, too */
    free_pair(&pair);
}
END_TEST

/* ---- OpenSSL as the peer ---- */

struct rogue {
    SSL_CTX *ctx;
    SSL *ssl;
};

/* A client on end 1 with far's certificate, after its first flight. */
static void open_rogue(struct rogue *rogue, struct pair *pair, int version)
{
    char cert[256], key[256];
    *pair = (struct pair){.tls = {load_tls("certs", "near", "certs", true, NULL, NULL)}};
    support_socketpair(pair->fds);
    ck_assert_int_eq(evpt_tls_accept(pair->tls[0], pair->fds[0], &pair->ends[0]), 0);
    snprintf(cert, sizeof(cert), "%s/far.crt", getenv("EVPT_TEST_CERTS"));
    snprintf(key, sizeof(key), "%s/far.key", getenv("EVPT_TEST_CERTS"));
    rogue->ctx = SSL_CTX_new(TLS_method());
    ck_assert_int_eq(SSL_CTX_use_certificate_chain_file(rogue->ctx, cert), 1);
    ck_assert_int_eq(SSL_CTX_use_PrivateKey_file(rogue->ctx, key, SSL_FILETYPE_PEM), 1);
    SSL_CTX_set_max_proto_version(rogue->ctx, version);
    rogue->ssl = SSL_new(rogue->ctx);
    SSL_set_fd(rogue->ssl, pair->fds[1]);
    ck_assert_int_eq(SSL_connect(rogue->ssl), -1);
}

static void connect_rogue(struct rogue *rogue, struct pair *pair)
{
    open_rogue(rogue, pair, TLS1_3_VERSION);
    ck_assert_int_eq(step(pair, 0), -EAGAIN);
    ck_assert_int_eq(SSL_connect(rogue->ssl), 1);
    ck_assert_int_eq(step(pair, 0), 0);
}

static void free_rogue(struct rogue *rogue, struct pair *pair)
{
    SSL_free(rogue->ssl);
    SSL_CTX_free(rogue->ctx);
    evpt_transport_free(pair->ends[0]);
    evpt_tls_free(pair->tls[0]);
    evpt_sys_close(pair->fds[0]);
    evpt_sys_close(pair->fds[1]);
}

START_TEST(test_older_tls_is_refused)
{
    struct rogue rogue;
    struct pair pair;
    open_rogue(&rogue, &pair, TLS1_2_VERSION);
    ck_assert_int_eq(step(&pair, 0), -EVPT_ETLS);
    ck_assert_str_eq(pair.ends[0]->reason, "the TLS handshake failed: unsupported protocol");
    free_rogue(&rogue, &pair);
}
END_TEST

START_TEST(test_no_ticket_is_given_and_no_session_resumed)
{
    struct rogue rogue;
    struct pair pair;
    connect_rogue(&rogue, &pair);
    char buffer[64];
    ck_assert_int_eq(write_end(&pair, 0, "x", 1), 1);
    ck_assert_int_eq(SSL_read(rogue.ssl, buffer, sizeof(buffer)),
                     1); /* a ticket would come first */
    ck_assert(!SSL_SESSION_has_ticket(SSL_get_session(rogue.ssl)));
    ck_assert(!SSL_SESSION_is_resumable(SSL_get_session(rogue.ssl)));
    ck_assert_uint_eq(SSL_SESSION_get_max_early_data(SSL_get_session(rogue.ssl)), 0);
    free_rogue(&rogue, &pair);
}
END_TEST

START_TEST(test_key_update_of_the_peer_is_answered)
{
    struct rogue rogue;
    struct pair pair;
    char buffer[64];
    connect_rogue(&rogue, &pair);
    for (int i = 0; i < 100; i++) { /* any number of them, as long as there are data, too */
        ck_assert_int_eq(SSL_key_update(rogue.ssl, SSL_KEY_UPDATE_REQUESTED), 1);
        ck_assert_int_eq(SSL_write(rogue.ssl, "ask", 3), 3);
        ck_assert_int_eq(read_end(&pair, 0, buffer, sizeof(buffer)), 3);
        ck_assert_int_eq(write_end(&pair, 0, "answer", 6), 6);
        ck_assert_int_eq(SSL_read(rogue.ssl, buffer, sizeof(buffer)), 6);
    }
    free_rogue(&rogue, &pair);
}
END_TEST

START_TEST(test_key_updates_without_end_are_refused)
{
    struct rogue rogue;
    struct pair pair;
    char buffer[64];
    connect_rogue(&rogue, &pair);
    for (int i = 0; i < 200; i++) {
        ck_assert_int_eq(SSL_key_update(rogue.ssl, SSL_KEY_UPDATE_REQUESTED), 1);
        ck_assert_int_eq(SSL_do_handshake(rogue.ssl), 1);
    }
    ck_assert_int_eq(read_end(&pair, 0, buffer, sizeof(buffer)), -EVPT_EPROTOCOL);
    ck_assert_str_eq(pair.ends[0]->reason, "too many TLS records without data");
    free_rogue(&rogue, &pair);
}
END_TEST

/* A key update is answered with the next write; what the socket does not take of it waits, and
 * reading goes on meanwhile. */
START_TEST(test_reading_goes_on_while_the_socket_takes_nothing)
{
    struct rogue rogue;
    struct pair pair;
    static uint8_t bytes[100000];
    char buffer[64];
    connect_rogue(&rogue, &pair);
    while (write_end(&pair, 0, bytes, sizeof(bytes)) > 0)
        continue;
    ck_assert(pair.ends[0]->pending);
    for (int i = 0; i < 10; i++) {
        ck_assert_int_eq(SSL_key_update(rogue.ssl, SSL_KEY_UPDATE_REQUESTED), 1);
        ck_assert_int_eq(SSL_write(rogue.ssl, "ask", 3), 3);
        ck_assert_int_eq(read_end(&pair, 0, buffer, sizeof(buffer)), 3);
    }
    while (pair.ends[0]->pending) {
        ck_assert_int_gt(SSL_read(rogue.ssl, bytes, sizeof(bytes)), 0);
        ck_assert_int_ne(pair.ends[0]->ops->write(pair.ends[0], NULL, 0), -EVPT_ETLS);
    }
    free_rogue(&rogue, &pair);
}
END_TEST

START_TEST(test_handshake_is_bounded_in_bytes)
{
    static uint8_t hello[EVPT_TRANSPORT_HANDSHAKE_MAX + 100] = {0x16, 3, 1, 0x3f, 0xff, 1, 0, 0xff};
    struct pair pair = {.tls = {load_tls("certs", "near", "certs", true, NULL, NULL)}};
    support_socketpair(pair.fds);
    ck_assert_int_eq(evpt_tls_accept(pair.tls[0], pair.fds[0], &pair.ends[0]), 0);
    ck_assert_int_eq(evpt_sys_write(pair.fds[1], hello, sizeof(hello)), sizeof(hello));
    ck_assert_int_eq(step(&pair, 0), -EVPT_ELIMIT);
    evpt_transport_free(pair.ends[0]);
    evpt_tls_free(pair.tls[0]);
    evpt_sys_close(pair.fds[0]);
    evpt_sys_close(pair.fds[1]);
}
END_TEST

START_TEST(test_other_protocols_are_no_handshake)
{
    static const char *const openings[] = {"GET / HTTP/1.0\r\n\r\n",
                                           "\x00\x1e\x84\x00\x00\x00\x00\x94\x01\xa6game_1",
                                           "SSH-2.0-x\r\n"};
    for (size_t i = 0; i < sizeof(openings) / sizeof(openings[0]); i++) {
        struct pair pair = {.tls = {load_tls("certs", "near", "certs", true, NULL, NULL)}};
        support_socketpair(pair.fds);
        ck_assert_int_eq(evpt_tls_accept(pair.tls[0], pair.fds[0], &pair.ends[0]), 0);
        ck_assert_int_eq(evpt_sys_write(pair.fds[1], openings[i], 11), 11);
        ck_assert_int_eq(step(&pair, 0), -EVPT_ETLS);
        evpt_transport_free(pair.ends[0]);
        evpt_tls_free(pair.tls[0]);
        evpt_sys_close(pair.fds[0]);
        evpt_sys_close(pair.fds[1]);
    }
}
END_TEST

/* ---- files ---- */

static void write_pem(char *path, size_t size, const char *text)
{
    snprintf(path, size, "%s/../bad-%d.pem", getenv("EVPT_TEST_CERTS"), (int)getpid());
    ck_assert_int_eq(evpt_sys_file_replace(path, text, strlen(text)), 0);
}

START_TEST(test_bad_files_are_named_and_leave_the_old_ones_in_force)
{
    const char *folder = getenv("EVPT_TEST_CERTS");
    char cert[256], key[256], ca[256], other_key[256], bad[256], text[EVPT_TLS_TEXT_SIZE];
    snprintf(cert, sizeof(cert), "%s/near.crt", folder);
    snprintf(key, sizeof(key), "%s/near.key", folder);
    snprintf(other_key, sizeof(other_key), "%s/far.key", folder);
    snprintf(ca, sizeof(ca), "%s/ca.crt", folder);
    write_pem(bad, sizeof(bad), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    const struct {
        struct evpt_tls_files files;
        int error;
        const char *words;
    } cases[] = {
        {{"/nowhere/x.crt", key, ca, NULL}, -ENOENT, "/nowhere/x.crt: No such file or directory"},
        {{key, key, ca, NULL}, -EVPT_ETLS, "near.key: expected a certificate (PEM)"},
        {{bad, key, ca, NULL}, -EVPT_ETLS, "a certificate cannot be read"},
        {{cert, cert, ca, NULL}, -EVPT_ETLS, "near.crt: expected a private key (PEM)"},
        {{cert, other_key, ca, NULL}, -EVPT_ETLS, "far.key: is not the key of the certificate in"},
        {{cert, key, key, NULL}, -EVPT_ETLS, "near.key: expected certificates (PEM)"},
        {{cert, key, bad, NULL}, -EVPT_ETLS, "a certificate cannot be read"},
        {{cert, key, ca, "far"}, -EVPT_ETLS, "near.crt: the certificate does not name far"},
    };
    struct pair pair;
    open_friends(&pair);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        text[0] = 0;
        ck_assert_int_eq(evpt_tls_load(pair.tls[0], &cases[i].files, text), cases[i].error);
        ck_assert_msg(strstr(text, cases[i].words) != NULL, "%zu: %s", i, text);
    }
    ck_assert_int_eq(evpt_sys_file_remove(bad), 0);
    struct evpt_transport *ends[2];
    int fds[2];
    support_socketpair(fds);
    ck_assert_int_eq(evpt_tls_accept(pair.tls[0], fds[0], &ends[0]), 0);
    ck_assert_int_eq(evpt_tls_connect(pair.tls[1], fds[1], "near", &ends[1]), 0);
    shake_hands(ends);
    for (int i = 0; i < 2; i++) {
        evpt_transport_free(ends[i]);
        evpt_sys_close(fds[i]);
    }
    free_pair(&pair);
}
END_TEST

START_TEST(test_load_holds_for_new_connections_and_old_ones_go_on)
{
    struct pair pair;
    char buffer[64], cert[256], key[256], ca[256], text[EVPT_TLS_TEXT_SIZE];
    const char *folder = getenv("EVPT_TEST_CERTS");
    open_friends(&pair);
    snprintf(cert, sizeof(cert), "%s/../stranger/near.crt", folder);
    snprintf(key, sizeof(key), "%s/../stranger/near.key", folder);
    snprintf(ca, sizeof(ca), "%s/../stranger/ca.crt", folder);
    struct evpt_tls_files files = {.cert = cert, .key = key, .ca = ca, .name = "near"};
    ck_assert_int_eq(evpt_tls_load(pair.tls[0], &files, text), 0);
    ck_assert_int_eq(write_end(&pair, 1, "still", 5), 5);
    ck_assert_int_eq(read_end(&pair, 0, buffer, sizeof(buffer)), 5);
    struct evpt_transport *ends[2];
    int fds[2];
    support_socketpair(fds);
    ck_assert_int_eq(evpt_tls_accept(pair.tls[0], fds[0], &ends[0]), 0);
    ck_assert_int_eq(evpt_tls_connect(pair.tls[1], fds[1], "near", &ends[1]), 0);
    ck_assert_int_eq(ends[1]->ops->handshake(ends[1]), -EAGAIN);
    ck_assert_int_eq(ends[0]->ops->handshake(ends[0]), -EAGAIN);
    ck_assert_int_eq(ends[1]->ops->handshake(ends[1]), -EVPT_ETLS);
    for (int i = 0; i < 2; i++) {
        evpt_transport_free(ends[i]);
        evpt_sys_close(fds[i]);
    }
    free_pair(&pair);
}
END_TEST

START_TEST(test_refused_memory_makes_no_transport)
{
    struct pair pair;
    struct evpt_transport *transport;
    struct evpt_tls *tls;
    open_friends(&pair);
    support_fail_allocation(1);
    ck_assert_int_eq(evpt_tls_accept(pair.tls[0], pair.fds[0], &transport), -ENOMEM);
    support_fail_allocation(1);
    ck_assert_int_eq(evpt_tls_new(&tls, true, NULL, NULL), -ENOMEM);
    free_pair(&pair);
}
END_TEST

START_TEST(test_stream_that_cannot_start_lets_go_of_its_transport)
{
    struct evpt_loop *loop = support_loop();
    struct evpt_tls *tls = load_tls("certs", "near", "certs", true, NULL, NULL);
    struct evpt_stream stream = {0};
    int fd = evpt_sys_reserve_fd(); /* epoll takes no /dev/null */
    ck_assert_int_eq(evpt_tls_accept(tls, fd, &stream.transport), 0);
    ck_assert_int_eq(evpt_stream_start(&stream, loop, fd, &ops, NULL), -EPERM);
    evpt_stream_fini(&stream);
    evpt_tls_free(tls);
    evpt_loop_free(loop);
}
END_TEST

/* The end is in the transport's hands, and no event will tell of it. */
START_TEST(test_paused_stream_finds_an_announced_end_when_it_goes_on)
{
    struct side *side = new_side();
    side->pause_in_data = true;
    peer_sends(side, "last words");
    side->line.transports[1]->ops->shutdown(side->line.transports[1]);
    turn(side);
    assert_received(side, "last words");
    for (int i = 0; i < 3; i++)
        turn(side);
    ck_assert_int_eq(side->closes, 0);
    evpt_stream_pause(&side->stream, false);
    turn(side);
    ck_assert_int_eq(side->closes, 1);
    ck_assert_int_eq(side->error, -EVPT_EEOF);
    free_side(side);
}
END_TEST

START_TEST(test_stream_tells_how_tls_ended)
{
    struct side *side = new_side();
    evpt_sys_close(side->line.fds[1]);
    side->line.fds[1] = -1;
    turn(side);
    ck_assert_int_eq(side->closes, 1);
    ck_assert_int_eq(side->error, -EVPT_ETRUNCATED);
    ck_assert_str_eq(side->reason, "the connection ended without TLS's close_notify");
    free_side(side);
}
END_TEST

SUPPORT_MAIN(
    "reactor/tls", test_both_ends_know_whom_they_speak_to,
    test_client_refuses_a_server_of_another_name,
    test_server_refuses_a_client_that_it_does_not_know, test_server_refuses_a_client_of_another_ca,
    test_without_verify_name_the_ca_alone_counts, test_announced_end_comes_behind_the_bytes,
    test_end_without_close_notify_is_a_truncation,
    test_damaged_record_ends_the_connection_behind_the_good_ones,
    test_bytes_count_as_written_when_their_record_has_left,
    test_no_memory_for_what_the_socket_does_not_take_is_an_error,
    test_many_pieces_leave_as_one_record, test_keys_are_renewed_after_so_many_records,
    test_older_tls_is_refused, test_no_ticket_is_given_and_no_session_resumed,
    test_key_update_of_the_peer_is_answered, test_key_updates_without_end_are_refused,
    test_reading_goes_on_while_the_socket_takes_nothing, test_handshake_is_bounded_in_bytes,
    test_other_protocols_are_no_handshake, test_bad_files_are_named_and_leave_the_old_ones_in_force,
    test_load_holds_for_new_connections_and_old_ones_go_on, test_refused_memory_makes_no_transport,
    test_stream_that_cannot_start_lets_go_of_its_transport,
    test_paused_stream_finds_an_announced_end_when_it_goes_on, test_stream_tells_how_tls_ended)
