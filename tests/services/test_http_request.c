/* The head of an HTTP request: what is taken, what is refused and when, whatever the pieces are. */
#include "services/http_request.h"
#include "support.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int read_bytes(const char *bytes, size_t size, struct evpt_http_request *ret_request)
{
    /* exactly as long, so that a sanitizer sees a read behind its end */
    uint8_t *copy = malloc(size + 1);
    ck_assert_ptr_nonnull(copy);
    memcpy(copy, bytes, size);
    uint8_t *exact = realloc(copy, size ? size : 1);
    ck_assert_ptr_nonnull(exact);
    struct evpt_http_request request = {0};
    int got = evpt_http_request_read(&request, exact, size);
    if (got > 0) { /* the path lies in the copy */
        ck_assert((const uint8_t *)request.path >= exact);
        request.path = bytes + (request.path - (const char *)exact);
    }
    free(exact);
    *ret_request = request;
    return got;
}

static int status_of(const char *text)
{
    struct evpt_http_request request;
    return read_bytes(text, strlen(text), &request);
}

struct good {
    const char *text, *path;
    bool head, close;
};

static const struct good goods[] = {
    {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "/", false, false},
    {"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", "/metrics", false, false},
    {"GET /metrics?name[]=a&b HTTP/1.1\r\nHost: a\r\n\r\n", "/metrics", false, false},
    {"GET /a?b?c HTTP/1.1\r\nHOST:a\r\n\r\n", "/a", false, false},
    {"HEAD /x HTTP/1.1\r\nhost: a:1\r\n\r\n", "/x", true, false},
    {"GET /x HTTP/1.0\r\n\r\n", "/x", false, true},
    {"GET /x HTTP/1.0\r\nHost: a\r\n\r\n", "/x", false, true},
    {"GET http://a:1/x?y HTTP/1.1\r\nHost: a\r\n\r\n", "/x", false, false},
    {"GET HTTP://a/ HTTP/1.1\r\nHost: a\r\n\r\n", "/", false, false},
    {"GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "/x", false, true},
    {"GET /x HTTP/1.1\r\nHost: a\r\nConnection: te ,\tCLOSE\r\n\r\n", "/x", false, true},
    {"GET /x HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n", "/x", false, false},
    {"GET /x HTTP/1.1\r\nHost: a\r\nConnection: closed, xclose\r\n\r\n", "/x", false, false},
    {"GET /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", "/x", false, false},
    {"GET /x HTTP/1.1\r\nAccept: text/plain;q=0.5\r\nX: \xe4\xbd\xa0\t!\r\nE:\r\nHost: a\r\n\r\n",
     "/x", false, false},
};

static void check_good(const struct good *good, const struct evpt_http_request *request)
{
    ck_assert_msg(request->path_size == strlen(good->path) &&
                      memcmp(request->path, good->path, request->path_size) == 0,
                  "%s", good->text);
    ck_assert_msg(request->head == good->head && request->close == good->close, "%s", good->text);
}

START_TEST(test_http_request_is_understood)
{
    for (size_t i = 0; i < sizeof(goods) / sizeof(goods[0]); i++) {
        struct evpt_http_request request;
        int got = read_bytes(goods[i].text, strlen(goods[i].text), &request);
        ck_assert_msg(got == (int)strlen(goods[i].text), "%d: %s", got, goods[i].text);
        check_good(&goods[i], &request);
    }
}
END_TEST

/* Every beginning of a good request is incomplete, and what follows it is left alone. */
START_TEST(test_http_request_does_not_care_how_it_comes)
{
    for (size_t i = 0; i < sizeof(goods) / sizeof(goods[0]); i++) {
        struct evpt_http_request request;
        size_t size = strlen(goods[i].text);
        for (size_t part = 0; part < size; part++) {
            int got = read_bytes(goods[i].text, part, &request);
            ck_assert_msg(got == 0, "%d at byte %zu: %s", got, part, goods[i].text);
        }
        char two[512];
        snprintf(two, sizeof(two), "%s%s", goods[i].text, "\x16\x03\x01 no HTTP at all");
        ck_assert_int_eq(read_bytes(two, strlen(two), &request), (int)size);
        check_good(&goods[i], &request);
    }
}
END_TEST

static const struct bad {
    const char *text;
    int status;
} bads[] = {
    {"POST /metrics HTTP/1.1\r\n", 405}, /* before the rest: its body may be long */
    {"DELETE / HTTP/1.1\r\n", 405},
    {"get / HTTP/1.1\r\n", 405}, /* methods are case-sensitive */
    {"GETS / HTTP/1.1\r\n", 405},
    {"GET / HTTP/2.0\r\n", 505},
    {"GET / HTTP/1.2\r\n", 505},
    {"GET / HTTP/0.9\r\n", 505},
    {"GET /\r\n", 400}, /* HTTP/0.9 */
    {"\r\n", 400},
    {" GET / HTTP/1.1\r\n", 400},
    {"GET  / HTTP/1.1\r\n", 400},
    {"GET / HTTP/1.1 \r\n", 400},
    {"GET /a b HTTP/1.1\r\n", 400},
    {"GET / http/1.1\r\n", 400},
    {"GET / HTTP/1.10\r\n", 400},
    {"GET / HTTP/11\r\n", 400},
    {"GET / HTPP/1.1\r\n", 400},
    {"G@T / HTTP/1.1\r\n", 400},
    {"GET x HTTP/1.1\r\n", 400},
    {"GET * HTTP/1.1\r\n", 400},
    {"GET /x#y HTTP/1.1\r\n", 400},
    {"GET http:// HTTP/1.1\r\n", 400},
    {"GET http:///x HTTP/1.1\r\n", 400},
    {"GET ftp://a/x HTTP/1.1\r\n", 400},
    {"GET / HTTP/1.1\n", 400}, /* LF alone */
    {"GET / HTTP/1.1\r\nHost: a\n\r\n", 400},
    {"GET / HTTP/1.1\r\nHost: a\r\n\n", 400},
    {"GET /\rx HTTP/1.1", 400}, /* CR alone, seen at once */
    {"GET /\x01", 400},
    {"GET /\xff", 400},
    {"\x16\x03\x01\x02", 400},       /* TLS */
    {"GET / HTTP/1.1\r\n\r\n", 400}, /* no Host */
    {"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\nHost:\r\n", 400},
    {"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n", 400},
    {"GET / HTTP/1.1\r\nHost : a\r\n", 400},
    {"GET / HTTP/1.1\r\nHost: a\r\n folded\r\n", 400},
    {"GET / HTTP/1.1\r\nHost\r\n", 400},
    {"GET / HTTP/1.1\r\n: a\r\n", 400},
    {"GET / HTTP/1.1\r\nX: a\x7f", 400},
    {"GET / HTTP/1.1\r\nX: a\rb", 400},
    {"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n", 400},
    {"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +0\r\n", 400},
    {"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 0\r\n", 400},
    {"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n", 400},
};

/* ... and as soon as the bytes are there: not one byte less is refused, and what follows changes
 * nothing. */
START_TEST(test_http_request_that_is_wrong_is_refused_at_its_first_wrong_byte)
{
    for (size_t i = 0; i < sizeof(bads) / sizeof(bads[0]); i++) {
        char more[512];
        ck_assert_msg(status_of(bads[i].text) == -bads[i].status, "%d: %s", status_of(bads[i].text),
                      bads[i].text);
        snprintf(more, sizeof(more), "%sGET / HTTP/1.1\r\nHost: a\r\n\r\n", bads[i].text);
        ck_assert_msg(status_of(more) < 0, "%s", more);
    }
}
END_TEST

START_TEST(test_http_request_zero_byte_is_refused_anywhere)
{
    const char *text = goods[1].text;
    size_t size = strlen(text);
    for (size_t at = 0; at < size; at++) {
        char bytes[128];
        struct evpt_http_request request;
        memcpy(bytes, text, size);
        bytes[at] = 0;
        ck_assert_int_eq(read_bytes(bytes, size, &request), -400);
    }
}
END_TEST

START_TEST(test_http_request_that_is_too_long_is_refused)
{
    char text[EVPT_HTTP_HEAD_MAX + 100];
    struct evpt_http_request request;
    memset(text, 'a', sizeof(text));
    memcpy(text, "GET /", 5);
    ck_assert_int_eq(read_bytes(text, EVPT_HTTP_LINE_MAX, &request), 0);
    ck_assert_int_eq(read_bytes(text, EVPT_HTTP_LINE_MAX + 2, &request), -414);
    memcpy(text + EVPT_HTTP_LINE_MAX - 9, " HTTP/1.1\r\nHost: a\r\n\r\n", 22);
    ck_assert_int_gt(read_bytes(text, EVPT_HTTP_LINE_MAX + 13, &request), 0);
    memcpy(text + EVPT_HTTP_LINE_MAX - 8, " HTTP/1.1\r\nHost: a\r\n\r\n", 22);
    ck_assert_int_eq(read_bytes(text, EVPT_HTTP_LINE_MAX + 14, &request), -414);

    memset(text, 'a', sizeof(text));
    memcpy(text, "GET / HTTP/1.1\r\nHost: a\r\nX: ", 28);
    ck_assert_int_eq(read_bytes(text, EVPT_HTTP_HEAD_MAX - 1, &request), 0);
    ck_assert_int_eq(read_bytes(text, EVPT_HTTP_HEAD_MAX, &request), -431);
    memcpy(text + EVPT_HTTP_HEAD_MAX - 4, "\r\n\r\n", 4); /* the longest there is */
    ck_assert_int_eq(read_bytes(text, sizeof(text), &request), EVPT_HTTP_HEAD_MAX);
}
END_TEST

START_TEST(test_http_request_with_too_many_fields_is_refused)
{
    for (unsigned count = EVPT_HTTP_FIELDS_MAX - 1; count <= EVPT_HTTP_FIELDS_MAX; count++) {
        char text[1024] = "GET / HTTP/1.1\r\nHost: a\r\n";
        for (unsigned i = 0; i < count; i++)
            strcat(text, "X: y\r\n");
        strcat(text, "\r\n");
        int got = status_of(text);
        ck_assert_int_eq(got, count < EVPT_HTTP_FIELDS_MAX ? (int)strlen(text) : -431);
    }
}
END_TEST

/* Anything at all is taken, refused or incomplete, and never read past its end (ASan). */
START_TEST(test_http_request_survives_random_changes)
{
    uint64_t random = support_seed();
    for (int i = 0; i < 200000; i++) {
        const char *good = goods[support_random(&random) % (sizeof(goods) / sizeof(goods[0]))].text;
        char bytes[256];
        size_t size = strlen(good);
        memcpy(bytes, good, size);
        for (int changes = 1 + (int)(support_random(&random) % 3); changes; changes--) {
            static const char likely[] = "\r\n :/?#\t\0GET1.H";
            bytes[support_random(&random) % size] =
                likely[support_random(&random) % (sizeof(likely) - 1)];
        }
        size -= support_random(&random) % 4;
        struct evpt_http_request request;
        int got = read_bytes(bytes, size, &request);
        CHECK(got <= (int)size &&
              (got >= 0 || evpt_http_status_text(-got)[0] != '5' || got == -505));
    }
}
END_TEST

SUPPORT_MAIN("http_request", test_http_request_is_understood,
             test_http_request_does_not_care_how_it_comes,
             test_http_request_that_is_wrong_is_refused_at_its_first_wrong_byte,
             test_http_request_zero_byte_is_refused_anywhere,
             test_http_request_that_is_too_long_is_refused,
             test_http_request_with_too_many_fields_is_refused,
             test_http_request_survives_random_changes)
