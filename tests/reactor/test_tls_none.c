/* evpt built without TLS: linked with tls_none.c, whatever the build has. */
#include "support.h"
#include "reactor/tls.h"
#include <errno.h>

START_TEST(test_without_openssl_every_attempt_says_so)
{
    static const struct evpt_tls_files files = {"a.crt", "a.key", "ca.crt", "a"};
    char text[EVPT_TLS_TEXT_SIZE];
    struct evpt_tls *tls;
    struct evpt_transport *transport;
    ck_assert_int_eq(evpt_tls_new(&tls, true, NULL, NULL), -ENOTSUP);
    ck_assert_int_eq(evpt_tls_load(NULL, &files, text), -ENOTSUP);
    ck_assert_str_eq(text, "this evpt was built without TLS");
    ck_assert_int_eq(evpt_tls_connect(NULL, 0, "b", &transport), -ENOTSUP);
    ck_assert_int_eq(evpt_tls_accept(NULL, 0, &transport), -ENOTSUP);
    evpt_tls_set_key_records(NULL, 1);
    evpt_tls_free(NULL);
}
END_TEST

SUPPORT_MAIN("reactor/tls_none", test_without_openssl_every_attempt_says_so)
