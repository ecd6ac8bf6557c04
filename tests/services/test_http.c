/* The HTTP server against clients that behave, and others, over real sockets; time is moved. */
#include "services/http.h"
#include "support.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { CLIENTS = EVPT_HTTP_CONNECTIONS_MAX + 4, SEEN_MAX = 1 << 20 };

#define GET "GET /page HTTP/1.1\r\nHost: a\r\n\r\n"

static struct evpt_loop *loop;
static struct evpt_http http;
static struct evpt_addr addr;
static int asked;
static uint32_t last_asked;
static bool answer_later;
static const char *page; /* what is answered */
static size_t page_size;
static char seen[SEEN_MAX + 1];

static void on_request(struct evpt_http *server, uint32_t connection, const char *path, size_t size,
                       void *user)
{
    asked++;
    last_asked = connection;
    ck_assert_ptr_eq(user, &asked);
    ck_assert_uint_eq(size, 5);
    ck_assert_mem_eq(path, "/page", 5);
    if (!answer_later)
        evpt_http_respond(server, connection, 200, "text/plain", page, page_size);
}

static void start_http(void)
{
    static const struct evpt_http_ops ops = {.on_request = on_request};
    ck_assert_int_eq(evpt_loop_new(&loop), 0);
    ck_assert_int_eq(evpt_addr_parse(&addr, "127.0.0.1:0"), 0);
    ck_assert_int_eq(evpt_http_start(&http, loop, &addr, &ops, &asked), 0);
    ck_assert_int_eq(evpt_http_addr(&http, &addr), 0);
    asked = 0;
    answer_later = false;
    page = "hello";
    page_size = 5;
}

static void stop_http(void)
{
    evpt_http_stop(&http);
    evpt_http_stop(&http);
    evpt_loop_free(loop);
}

static void turn(void)
{
    ck_assert_int_ge(evpt_loop_turn(loop, 0), 0);
}

static void pass_ms(uint64_t ms)
{
    support_skip_ms(ms);
    for (int i = 0; i < 4; i++) /* the wheel may need a turn more than one */
        turn();
}

static int in_use(void)
{
    int count = 0;
    for (int i = 0; i < EVPT_HTTP_CONNECTIONS_MAX; i++)
        count += http.connections[i].http != NULL;
    return count;
}

#define TURN_UNTIL(condition)                                                                      \
    do {                                                                                           \
        uint64_t limit_ns_ = support_limit_ns();                                                   \
        while (!(condition)) {                                                                     \
            if (support_real_now_ns() >= limit_ns_)                                                \
                ck_abort_msg("never came true: %s", #condition);                                   \
            turn();                                                                                \
        }                                                                                          \
    } while (0)

/* ---- a client ---- */

static int open_client(void)
{
    int fd = evpt_sys_connect(&addr);
    ck_assert_int_ge(fd, 0);
    return fd;
}

/* A client whose connection the server has taken up. */
static int accepted_client(void)
{
    uint32_t before = http.accepted;
    int fd = open_client();
    TURN_UNTIL(http.accepted > before);
    return fd;
}

static void say(int fd, const char *text)
{
    ck_assert_int_eq(evpt_sys_write(fd, text, strlen(text)), (ssize_t)strlen(text));
}

/* What has come so far, added to `seen`. True: the server has closed. */
static bool take(int fd, size_t *size)
{
    for (;;) {
        ssize_t got = evpt_sys_read(fd, seen + *size, SEEN_MAX - *size);
        if (got == -EAGAIN)
            return false;
        if (got == 0 || got == -ECONNRESET)
            return true;
        ck_assert_int_gt(got, 0);
        *size += (size_t)got;
        seen[*size] = 0;
    }
}

/* Reads until the text has come (then it is cut off in front of what came behind). */
static void expect(int fd, const char *end)
{
    size_t size = 0;
    seen[0] = 0;
    TURN_UNTIL(!take(fd, &size) && strstr(seen, end));
}

static void expect_end(int fd, const char *in_it)
{
    size_t size = 0;
    seen[0] = 0;
    TURN_UNTIL(take(fd, &size));
    ck_assert_msg(strstr(seen, in_it), "%s", seen);
    evpt_sys_close(fd);
}

static void expect_nothing(int fd)
{
    size_t size = 0;
    for (int i = 0; i < 4; i++)
        turn();
    ck_assert(!take(fd, &size));
    ck_assert_uint_eq(size, 0);
}

/* ---- tests ---- */

START_TEST(test_http_answers_one_request_after_the_other)
{
    start_http();
    int fd = accepted_client();
    for (int i = 1; i <= 3; i++) {
        say(fd, GET);
        expect(fd, "hello");
        ck_assert_int_eq(strncmp(seen, "HTTP/1.1 200 OK\r\nDate: ", 23), 0);
        ck_assert_ptr_nonnull(strstr(seen, "\r\nContent-Type: text/plain\r\n"));
        ck_assert_ptr_nonnull(strstr(seen, "\r\nContent-Length: 5\r\n"));
        ck_assert_ptr_null(strstr(seen, "Connection: close"));
        ck_assert_int_eq(asked, i);
    }
    evpt_sys_close(fd);
    TURN_UNTIL(in_use() == 0);
    stop_http();
}
END_TEST

START_TEST(test_http_head_is_the_same_without_a_body)
{
    start_http();
    int fd = accepted_client();
    say(fd, "HEAD /page HTTP/1.1\r\nHost: a\r\n\r\n");
    expect(fd, "\r\n\r\n");
    ck_assert_ptr_nonnull(strstr(seen, "\r\nContent-Length: 5\r\n"));
    ck_assert_ptr_null(strstr(seen, "hello"));
    say(fd, GET);
    expect(fd, "hello");
    evpt_sys_close(fd);
    stop_http();
}
END_TEST

START_TEST(test_http_request_in_single_bytes)
{
    start_http();
    int fd = accepted_client();
    for (const char *at = GET; *at; at++) {
        char one[2] = {*at, 0};
        ck_assert_int_eq(asked, 0);
        say(fd, one);
        turn();
    }
    expect(fd, "hello");
    evpt_sys_close(fd);
    stop_http();
}
END_TEST

START_TEST(test_http_pipelined_requests_wait_for_their_turn)
{
    start_http();
    answer_later = true;
    int fd = accepted_client();
    say(fd, GET GET GET);
    for (int i = 1; i <= 3; i++) {
        TURN_UNTIL(asked == i);
        expect_nothing(fd);
        ck_assert_int_eq(asked, i);
        evpt_http_respond(&http, last_asked, 200, "text/plain", "done", 4);
        evpt_http_respond(&http, last_asked, 200, "text/plain", "twice",
                          5); /* not asked any more */
        expect(fd, "done");
        ck_assert_ptr_null(strstr(seen, "twice"));
    }
    evpt_sys_close(fd);
    stop_http();
}
END_TEST

START_TEST(test_http_close_is_obeyed)
{
    static const char *const texts[] = {
        "GET /page HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "GET /page HTTP/1.0\r\n\r\n",
    };
    start_http();
    for (int i = 0; i < 2; i++) {
        int fd = accepted_client();
        say(fd, texts[i]);
        expect_end(fd, "Connection: close\r\n\r\nhello");
        TURN_UNTIL(in_use() == 0);
    }
    stop_http();
}
END_TEST

START_TEST(test_http_refusal_says_what_is_wrong_and_ends_the_connection)
{
    static const struct {
        const char *request, *answer;
    } cases[] = {
        {"nonsense\r\n\r\n", "HTTP/1.1 400 Bad Request\r\n"},
        {"POST /page HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", "405 Method Not"},
        {"POST /page HTTP/1.1\r\nHost: a\r\n\r\n", "\r\nAllow: GET, HEAD\r\n"},
        {"GET / HTTP/3.0\r\n\r\n", "505 HTTP Version"},
        {"GET / HTTP/1.1\r\n\r\n", "\r\n\r\n400 Bad Request\n"},
        {"GET / HTTP/1.1\r\n\r\n", "Connection: close"},
    };
    start_http();
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int fd = accepted_client();
        say(fd, cases[i].request);
        expect_end(fd, cases[i].answer);
        TURN_UNTIL(in_use() == 0);
    }
    ck_assert_int_eq(asked, 0);
    stop_http();
}
END_TEST

/* A client that goes on talking still gets to read why it is not listened to. */
START_TEST(test_http_refusal_reaches_a_client_that_is_still_writing)
{
    start_http();
    int fd = accepted_client();
    say(fd, "PUT /page HTTP/1.1\r\n");
    TURN_UNTIL(http.connections[0].stream.written_total > 0);
    static char body[65536];
    size_t size = 0;
    seen[0] = 0;
    for (int i = 0; i < 16; i++) {
        (void)evpt_sys_write(fd, body, sizeof(body)); /* as much as goes */
        turn();
    }
    TURN_UNTIL(take(fd, &size));
    ck_assert_ptr_nonnull(strstr(seen, "405 Method Not Allowed\n"));
    ck_assert_int_eq(in_use(), 1); /* it has all been said, but the client has not closed */
    pass_ms(EVPT_HTTP_LINGER_MS + 2);
    ck_assert_int_eq(in_use(), 0);
    evpt_sys_close(fd);
    stop_http();
}
END_TEST

START_TEST(test_http_slow_request_times_out)
{
    start_http();
    int silent = accepted_client(), slow = accepted_client();
    say(slow, "GET /page HTT");
    TURN_UNTIL(http.connections[1].begun);
    pass_ms(EVPT_HTTP_REQUEST_MS / 2);
    say(slow, "P/1.1\r\n"); /* which gives it no more time */
    pass_ms(EVPT_HTTP_REQUEST_MS / 2 - 100);
    ck_assert_int_eq(in_use(), 2);
    pass_ms(102);
    expect_end(slow, "408 Request Timeout");
    expect_end(silent, "");
    ck_assert_uint_eq(strlen(seen), 0);
    TURN_UNTIL(in_use() == 0);
    stop_http();
}
END_TEST

START_TEST(test_http_connection_may_rest_between_requests_but_not_for_ever)
{
    start_http();
    int fd = accepted_client();
    say(fd, GET);
    expect(fd, "hello");
    pass_ms(EVPT_HTTP_REST_MS - 1000);
    say(fd, GET);
    expect(fd, "hello");
    pass_ms(EVPT_HTTP_REST_MS + 2);
    expect_end(fd, "");
    stop_http();
}
END_TEST

/* The client asks for much and reads nothing. */
START_TEST(test_http_answer_that_is_not_taken_times_out)
{
    static char large[32 << 20]; /* more than a connection's two buffers in the system hold */
    start_http();
    page = large;
    page_size = sizeof(large);
    int fd = accepted_client();
    say(fd, "GET /page HTTP/1.1\r\nHost: a\r\n\r\n");
    TURN_UNTIL(asked);
    size_t size = 0;
    for (uint64_t before = 1; before != http.connections[0].stream.written_total;) {
        before = http.connections[0].stream.written_total; /* until the socket takes no more */
        turn();
    }
    ck_assert_uint_gt(evpt_stream_queued(&http.connections[0].stream), 0);
    pass_ms(EVPT_HTTP_WRITE_MS + 2);
    ck_assert_int_eq(in_use(), 0);
    while (!take(fd, &size)) /* what had been taken, and the end */
        size = 0;
    evpt_sys_close(fd);
    stop_http();
}
END_TEST

START_TEST(test_http_large_answer_arrives_whole)
{
    static char large[SEEN_MAX - 1000];
    for (size_t i = 0; i < sizeof(large); i++)
        large[i] = (char)('a' + i % 26);
    start_http();
    page = large;
    page_size = sizeof(large);
    int fd = accepted_client();
    say(fd, GET);
    size_t size = 0;
    TURN_UNTIL(!take(fd, &size) && size > sizeof(large));
    char *body = strstr(seen, "\r\n\r\n");
    ck_assert_ptr_nonnull(body);
    TURN_UNTIL(!take(fd, &size) && size >= (size_t)(body + 4 - seen) + sizeof(large));
    ck_assert_mem_eq(body + 4, large, sizeof(large));
    evpt_sys_close(fd);
    stop_http();
}
END_TEST

START_TEST(test_http_resting_connections_make_room_the_oldest_first)
{
    int fds[CLIENTS];
    start_http();
    for (int i = 0; i < EVPT_HTTP_CONNECTIONS_MAX; i++) {
        fds[i] = accepted_client();
        say(fds[i], GET);
        expect(fds[i], "hello");
    }
    say(fds[0], GET); /* not the oldest any more */
    expect(fds[0], "hello");
    int late = accepted_client();
    say(late, GET);
    expect(late, "hello");
    expect_end(fds[1], "");
    say(fds[0], GET);
    expect(fds[0], "hello");
    ck_assert_int_eq(in_use(), EVPT_HTTP_CONNECTIONS_MAX);
    for (int i = 0; i < EVPT_HTTP_CONNECTIONS_MAX; i++) {
        if (i != 1)
            evpt_sys_close(fds[i]);
    }
    evpt_sys_close(late);
    TURN_UNTIL(in_use() == 0);
    stop_http();
}
END_TEST

START_TEST(test_http_turns_away_who_finds_all_connections_busy)
{
    int fds[CLIENTS];
    start_http();
    answer_later = true;
    for (int i = 0; i < EVPT_HTTP_CONNECTIONS_MAX; i++) {
        fds[i] = accepted_client();
        say(fds[i], GET);
        TURN_UNTIL(asked == i + 1);
    }
    int late = open_client();
    expect_end(late, "HTTP/1.1 503 Service Unavailable\r\n");
    for (int i = 0; i < EVPT_HTTP_CONNECTIONS_MAX; i++) { /* the others notice nothing */
        evpt_http_respond(&http, http.connections[i].id, 200, "text/plain", "done", 4);
        expect(fds[i], "done");
        evpt_sys_close(fds[i]);
    }
    TURN_UNTIL(in_use() == 0);
    stop_http();
}
END_TEST

START_TEST(test_http_answer_for_a_connection_that_has_gone_is_dropped)
{
    start_http();
    answer_later = true;
    int fd = accepted_client();
    say(fd, GET);
    TURN_UNTIL(asked == 1);
    uint32_t gone = last_asked;
    evpt_sys_close(fd);
    for (int i = 0; i < 4; i++)
        turn(); /* nobody reads while an answer is due, so nobody has noticed */
    evpt_http_respond(&http, gone, 200, "text/plain", "done", 4);
    TURN_UNTIL(in_use() == 0);
    evpt_http_respond(&http, gone, 200, "text/plain", "again", 5);
    int next = accepted_client(); /* in the same place */
    evpt_http_respond(&http, gone, 200, "text/plain", "again", 5);
    say(next, GET);
    TURN_UNTIL(asked == 2);
    evpt_http_respond(&http, gone, 200, "text/plain", "again", 5);
    expect_nothing(next);
    evpt_sys_close(next);
    stop_http();
}
END_TEST

START_TEST(test_http_survives_any_refused_allocation)
{
    for (long nth = 1;; nth++) {
        start_http();
        support_fail_allocation(nth);
        int fd = open_client();
        size_t size = 0;
        seen[0] = 0;
        bool closed = false;
        say(fd, GET);
        TURN_UNTIL((closed = take(fd, &size)) || strstr(seen, "hello"));
        bool failed = support_allocation_failed();
        support_fail_allocation(0);
        ck_assert(closed == failed || !closed);
        evpt_sys_close(fd);
        stop_http();
        if (!failed)
            break;
    }
}
END_TEST

START_TEST(test_http_stop_with_everything_going_on_leaves_nothing)
{
    start_http();
    answer_later = true;
    int asking = accepted_client(), reading = accepted_client(), idle = accepted_client();
    int lingering = accepted_client();
    say(asking, GET);
    say(reading, "GET /pa");
    say(lingering, "PUT /page HTTP/1.1\r\n");
    TURN_UNTIL(asked && http.connections[1].begun && http.connections[3].stream.written_total > 0);
    stop_http();
    evpt_sys_close(asking);
    evpt_sys_close(reading);
    evpt_sys_close(idle);
    evpt_sys_close(lingering);
}
END_TEST

SUPPORT_MAIN("http", test_http_answers_one_request_after_the_other,
             test_http_head_is_the_same_without_a_body, test_http_request_in_single_bytes,
             test_http_pipelined_requests_wait_for_their_turn, test_http_close_is_obeyed,
             test_http_refusal_says_what_is_wrong_and_ends_the_connection,
             test_http_refusal_reaches_a_client_that_is_still_writing,
             test_http_slow_request_times_out,
             test_http_connection_may_rest_between_requests_but_not_for_ever,
             test_http_answer_that_is_not_taken_times_out, test_http_large_answer_arrives_whole,
             test_http_resting_connections_make_room_the_oldest_first,
             test_http_turns_away_who_finds_all_connections_busy,
             test_http_answer_for_a_connection_that_has_gone_is_dropped,
             test_http_survives_any_refused_allocation,
             test_http_stop_with_everything_going_on_leaves_nothing)
