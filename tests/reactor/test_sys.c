#include "support.h"
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- addresses ---- */

START_TEST(test_address_text_survives_the_round_trip)
{
    static const char *const texts[] = {"1.2.3.4:80",      "0.0.0.0:0",        "127.0.0.1:65535",
                                        "[::1]:80",        "[::]:0",           "[fe80::1]:7",
                                        "[2001:db8::9]:1", "255.255.255.255:1"};
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct evpt_addr addr;
        char text[EVPT_ADDR_TEXT_SIZE];
        ck_assert_int_eq(evpt_addr_parse(&addr, texts[i]), 0);
        ck_assert_str_eq(evpt_addr_format(&addr, text, sizeof(text)), texts[i]);
    }
}
END_TEST

START_TEST(test_malformed_addresses_are_refused_and_leave_the_result_alone)
{
    static const char *const texts[] = {
        "",
        ":",
        ":80",
        "1.2.3.4",
        "1.2.3.4:",
        "1.2.3.4:x",
        "1.2.3:80",
        "1.2.3.4:-1",
        "1.2.3.4:+1",
        "1.2.3.4: 1",
        "1.2.3.4:1 ",
        " 1.2.3.4:1",
        "a.b:80",
        "::1:80",
        "[::1]",
        "[::1]80",
        "[::1]:",
        "[::1:80",
        "[1.2.3.4]:80",
        "[]:80",
        "1.2.3.4:65536",
        "1.2.3.4:99999999999999999999",
        "[::1]:80]",
        "1.2.3.4:80:90",
        "[fe80::1%lo]:7",
        "[1111:2222:3333:4444:5555:6666:7777:8888:9999:1111:2222:3333:4444:5555]:80"};
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct evpt_addr addr = {.size = 77};
        ck_assert_int_eq(evpt_addr_parse(&addr, texts[i]), -EINVAL);
        ck_assert_uint_eq(addr.size, 77);
    }
}
END_TEST

START_TEST(test_local_address_must_fit)
{
    struct evpt_addr addr;
    char path[200], text[EVPT_ADDR_TEXT_SIZE];
    memset(path, 'x', sizeof(path));
    path[107] = 0;
    ck_assert_int_eq(evpt_addr_local(&addr, path), 0);
    ck_assert_str_eq(evpt_addr_format(&addr, text, sizeof(text)), path);
    path[107] = 'x';
    path[108] = 0;
    ck_assert_int_eq(evpt_addr_local(&addr, path), -ENAMETOOLONG);
    ck_assert_int_eq(evpt_addr_local(&addr, ""), -EINVAL);
}
END_TEST

START_TEST(test_loopback_and_port_are_recognised)
{
    static const struct {
        const char *text;
        bool loopback;
        uint16_t port;
    } cases[] = {{"127.0.0.1:1", true, 1},
                 {"127.255.0.9:80", true, 80},
                 {"128.0.0.1:2", false, 2},
                 {"0.0.0.0:65535", false, 65535},
                 {"[::1]:3", true, 3},
                 {"[::2]:4", false, 4},
                 {"[::ffff:127.0.0.1]:5", true, 5},
                 {"[::ffff:1.0.0.127]:6", false, 6}};
    struct evpt_addr addr = {0};
    ck_assert(!evpt_addr_is_loopback(&addr));
    ck_assert_uint_eq(evpt_addr_port(&addr), 0);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        ck_assert_int_eq(evpt_addr_parse(&addr, cases[i].text), 0);
        ck_assert_int_eq(evpt_addr_is_loopback(&addr), cases[i].loopback);
        ck_assert_uint_eq(evpt_addr_port(&addr), cases[i].port);
    }
    ck_assert_int_eq(evpt_addr_local(&addr, "/tmp/x"), 0);
    ck_assert(evpt_addr_is_loopback(&addr));
    ck_assert_uint_eq(evpt_addr_port(&addr), 0);
}
END_TEST

/* ---- sockets ---- */

static int flag(int fd, int option)
{
    int value = 0;
    socklen_t size = sizeof(value);
    ck_assert_int_eq(getsockopt(fd, IPPROTO_TCP, option, &value, &size), 0);
    return value;
}

static void assert_made_well(int fd)
{
    ck_assert(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    ck_assert(fcntl(fd, F_GETFL) & O_NONBLOCK);
}

START_TEST(test_both_ends_of_a_connection_are_set_up)
{
    struct evpt_addr addr, peer, local;
    ck_assert_int_eq(evpt_addr_parse(&addr, "127.0.0.1:0"), 0);
    int listening = evpt_sys_listen(&addr, 8);
    ck_assert_int_ge(listening, 0);
    ck_assert_int_eq(evpt_sys_local_addr(listening, &addr), 0);
    ck_assert_uint_ne(evpt_addr_port(&addr), 0);
    ck_assert_int_eq(evpt_sys_accept(listening, &peer), -EAGAIN);
    int client = evpt_sys_connect(&addr);
    ck_assert_int_ge(client, 0);
    int server = evpt_sys_accept(listening, &peer); /* on loopback it is there at once */
    ck_assert_int_ge(server, 0);
    ck_assert_int_eq(evpt_sys_connect_result(client), 0);
    ck_assert_int_eq(evpt_sys_local_addr(client, &local), 0);
    ck_assert_uint_eq(evpt_addr_port(&peer), evpt_addr_port(&local));
    int fds[] = {listening, client, server};
    for (int i = 0; i < 3; i++) {
        assert_made_well(fds[i]);
        ck_assert_int_ne(flag(fds[i], TCP_NODELAY), 0);
        evpt_sys_close(fds[i]);
    }
}
END_TEST

START_TEST(test_keepalive_takes_periods_of_any_length)
{
    static const struct {
        uint32_t ms;
        int seconds;
    } cases[] = {{1, 1}, {1000, 1}, {1001, 2}, {5000, 5}, {UINT32_MAX, 32767}};
    struct evpt_addr addr;
    ck_assert_int_eq(evpt_addr_parse(&addr, "127.0.0.1:0"), 0);
    int fd = evpt_sys_listen(&addr, 1), on = 0;
    socklen_t size = sizeof(on);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        ck_assert_int_eq(evpt_sys_set_keepalive(fd, cases[i].ms, 3), 0);
        ck_assert_int_eq(flag(fd, TCP_KEEPIDLE), cases[i].seconds);
        ck_assert_int_eq(flag(fd, TCP_KEEPINTVL), cases[i].seconds);
        ck_assert_int_eq(flag(fd, TCP_KEEPCNT), 2);
    }
    ck_assert_int_eq(getsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, &size), 0);
    ck_assert_int_ne(on, 0);
    evpt_sys_close(fd);
}
END_TEST

START_TEST(test_occupied_address_is_refused)
{
    struct evpt_addr addr;
    ck_assert_int_eq(evpt_addr_parse(&addr, "127.0.0.1:0"), 0);
    int first = evpt_sys_listen(&addr, 8);
    ck_assert_int_eq(evpt_sys_local_addr(first, &addr), 0);
    ck_assert_int_eq(evpt_sys_listen(&addr, 8), -EADDRINUSE);
    evpt_sys_close(first);
}
END_TEST

START_TEST(test_connection_to_itself_counts_as_refused)
{
    struct evpt_addr addr;
    ck_assert_int_eq(evpt_addr_parse(&addr, "127.0.0.1:0"), 0);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    ck_assert_int_eq(bind(fd, &addr.u.any, addr.size), 0);
    ck_assert_int_eq(evpt_sys_local_addr(fd, &addr), 0);
    ck_assert_int_eq(connect(fd, &addr.u.any, addr.size), 0); /* what the kernel may do by chance */
    ck_assert_int_eq(evpt_sys_connect_result(fd), -ECONNREFUSED);
    evpt_sys_close(fd);
}
END_TEST

START_TEST(test_write_to_a_closed_peer_is_an_error_and_no_signal)
{
    int fds[2];
    char byte = 'x';
    struct iovec vec = {&byte, 1};
    support_socketpair(fds);
    evpt_sys_close(fds[1]);
    ck_assert_int_eq(evpt_sys_write(fds[0], "x", 1), -EPIPE);
    ck_assert_int_eq(evpt_sys_writev(fds[0], &vec, 1), -EPIPE);
    evpt_sys_close(fds[0]);
    evpt_sys_close(-1);
}
END_TEST

/* The other user of a local socket is in tests/node/test_tls.py, which can become one. */
START_TEST(test_user_at_the_other_end_is_known_of_local_sockets_only)
{
    struct evpt_addr addr, peer;
    int fds[2];
    support_socketpair(fds);
    ck_assert(evpt_sys_peer_is_own_user(fds[0]));
    evpt_sys_close(fds[0]);
    evpt_sys_close(fds[1]);
    ck_assert(!evpt_sys_peer_is_own_user(-1));
    ck_assert_int_eq(evpt_addr_parse(&addr, "127.0.0.1:0"), 0);
    int listener = evpt_sys_listen(&addr, 1);
    ck_assert_int_eq(evpt_sys_local_addr(listener, &addr), 0);
    int client = evpt_sys_connect(&addr);
    ck_assert_int_ge(client, 0);
    int server = evpt_sys_accept(listener, &peer); /* on loopback connect has done it all */
    ck_assert_int_ge(server, 0);
    ck_assert(!evpt_sys_peer_is_own_user(server));
    evpt_sys_close(server);
    evpt_sys_close(client);
    evpt_sys_close(listener);
}
END_TEST

START_TEST(test_reads_and_writes_work_on_pipes_too)
{
    int fds[2];
    char buffer[8];
    char rest[] = "bc";
    struct iovec vec[2] = {{rest, 1}, {rest + 1, 1}};
    ck_assert_int_eq(pipe(fds), 0);
    ck_assert_int_eq(evpt_sys_write(fds[1], "a", 1), 1);
    ck_assert_int_eq(evpt_sys_writev(fds[1], vec, 2), 2);
    ck_assert_int_eq(evpt_sys_read(fds[0], buffer, sizeof(buffer)), 3);
    ck_assert_mem_eq(buffer, "abc", 3);
    evpt_sys_close(fds[1]);
    ck_assert_int_eq(evpt_sys_read(fds[0], buffer, sizeof(buffer)), 0);
    evpt_sys_close(fds[0]);
}
END_TEST

/* ---- a folder of its own for tests with files ---- */

struct folder {
    char path[100];
    char file[2][140];
};

static void make_folder(struct folder *folder)
{
    const char *tmp = getenv("TMPDIR");
    char path[100];
    snprintf(path, sizeof(path), "%.60s/evpt-test-XXXXXX", tmp ? tmp : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(path));
    strcpy(folder->path, path);
    for (int i = 0; i < 2; i++)
        snprintf(folder->file[i], sizeof(folder->file[i]), "%s/%d", path, i);
}

/* Fails where anything but the two files is left in it. */
static void remove_folder(const struct folder *folder)
{
    for (int i = 0; i < 2; i++)
        (void)unlink(folder->file[i]);
    ck_assert_int_eq(rmdir(folder->path), 0);
}

static mode_t mode_of(const char *path)
{
    struct stat status;
    ck_assert_int_eq(stat(path, &status), 0);
    return status.st_mode & 0777;
}

START_TEST(test_local_socket_is_private_and_a_stale_one_is_replaced)
{
    struct folder folder;
    struct evpt_addr addr, peer;
    make_folder(&folder);
    ck_assert_int_eq(evpt_addr_local(&addr, folder.file[0]), 0);
    int first = evpt_sys_listen(&addr, 8);
    ck_assert_int_ge(first, 0);
    ck_assert_uint_eq(mode_of(folder.file[0]), 0600);
    ck_assert_int_eq(evpt_sys_listen(&addr, 8), -EADDRINUSE); /* alive */
    evpt_sys_close(first);
    ck_assert(evpt_sys_file_exists(folder.file[0]));
    int second = evpt_sys_listen(&addr, 8);
    ck_assert_int_ge(second, 0);
    int client = evpt_sys_connect(&addr), server = evpt_sys_accept(second, &peer);
    ck_assert_int_ge(client, 0);
    ck_assert_int_ge(server, 0);
    char text[EVPT_ADDR_TEXT_SIZE];
    ck_assert_str_eq(evpt_addr_format(&peer, text, sizeof(text)), "local");
    evpt_sys_close(client);
    evpt_sys_close(server);
    evpt_sys_close(second);
    remove_folder(&folder);
}
END_TEST

START_TEST(test_file_in_the_place_of_a_local_socket_is_not_touched)
{
    struct folder folder;
    struct evpt_addr addr;
    make_folder(&folder);
    ck_assert_int_eq(evpt_sys_file_replace(folder.file[0], "precious", 8), 0);
    ck_assert_int_eq(evpt_addr_local(&addr, folder.file[0]), 0);
    ck_assert_int_eq(evpt_sys_listen(&addr, 8), -EADDRINUSE);
    ck_assert(evpt_sys_file_exists(folder.file[0]));
    remove_folder(&folder);
}
END_TEST

/* ---- files ---- */

static void assert_content(const char *path, const char *expected)
{
    char *text = NULL;
    size_t size = 0;
    ck_assert_int_eq(evpt_sys_file_read(path, 1000, &text, &size), 0);
    ck_assert_uint_eq(size, strlen(expected));
    ck_assert_str_eq(text, expected);
    evpt_sys_free(text);
}

START_TEST(test_file_is_replaced_as_a_whole_and_keeps_its_mode)
{
    struct folder folder;
    make_folder(&folder);
    ck_assert(!evpt_sys_file_exists(folder.file[0]));
    ck_assert_int_eq(evpt_sys_file_replace(folder.file[0], "first", 5), 0);
    assert_content(folder.file[0], "first");
    ck_assert_int_eq(chmod(folder.file[0], 0604), 0);
    ck_assert_int_eq(evpt_sys_file_replace(folder.file[0], "", 0), 0);
    assert_content(folder.file[0], "");
    ck_assert_uint_eq(mode_of(folder.file[0]), 0604);
    ck_assert_int_eq(evpt_sys_file_remove(folder.file[0]), 0);
    ck_assert_int_eq(evpt_sys_file_remove(folder.file[0]), -ENOENT);
    remove_folder(&folder); /* no temporary file is left */
}
END_TEST

START_TEST(test_replacement_of_a_symbolic_link_writes_what_it_leads_to)
{
    struct folder folder;
    struct stat link;
    make_folder(&folder);
    ck_assert_int_eq(symlink(folder.file[1], folder.file[0]), 0);
    ck_assert_int_eq(evpt_sys_file_replace(folder.file[1], "before", 6), 0);
    ck_assert_int_eq(evpt_sys_file_replace(folder.file[0], "after", 5), 0);
    assert_content(folder.file[1], "after");
    ck_assert_int_eq(lstat(folder.file[0], &link), 0);
    ck_assert(S_ISLNK(link.st_mode));
    ck_assert_int_eq(evpt_sys_file_remove(folder.file[0]), 0);
    ck_assert_int_eq(evpt_sys_file_remove(folder.file[1]), 0);
    remove_folder(&folder);
}
END_TEST

START_TEST(test_failed_replacement_leaves_nothing_behind)
{
    struct folder folder;
    make_folder(&folder);
    ck_assert_int_eq(mkdir(folder.file[0], 0700), 0); /* rename cannot replace a folder */
    ck_assert_int_eq(evpt_sys_file_replace(folder.file[0], "x", 1), -EISDIR);
    ck_assert_int_eq(rmdir(folder.file[0]), 0);
    ck_assert_int_eq(evpt_sys_file_replace("/nonexistent/file", "x", 1), -ENOENT);
    remove_folder(&folder);
}
END_TEST

START_TEST(test_file_larger_than_allowed_is_refused)
{
    struct folder folder;
    char *text = NULL;
    size_t size = 7;
    make_folder(&folder);
    ck_assert_int_eq(evpt_sys_file_replace(folder.file[0], "12345", 5), 0);
    ck_assert_int_eq(evpt_sys_file_read(folder.file[0], 4, &text, &size), -EFBIG);
    ck_assert_ptr_null(text);
    ck_assert_uint_eq(size, 7);
    ck_assert_int_eq(evpt_sys_file_read(folder.file[0], 5, &text, &size), 0);
    evpt_sys_free(text);
    remove_folder(&folder);
}
END_TEST

START_TEST(test_file_of_unknown_size_is_read_to_its_end)
{
    char *text = NULL;
    size_t size = 0;
    ck_assert_int_eq(evpt_sys_file_read("/proc/self/status", 1 << 20, &text, &size), 0);
    ck_assert_uint_gt(size, 100);
    ck_assert_uint_eq(strlen(text), size);
    ck_assert_ptr_nonnull(strstr(text, "Threads:"));
    evpt_sys_free(text);
    ck_assert_int_eq(evpt_sys_file_read("/proc/self/status", 10, &text, &size), -EFBIG);
}
END_TEST

START_TEST(test_only_regular_files_are_read)
{
    struct folder folder;
    char *text;
    size_t size;
    make_folder(&folder);
    ck_assert_int_eq(mkfifo(folder.file[0], 0600), 0);
    ck_assert_int_eq(evpt_sys_file_read(folder.file[0], 10, &text, &size), -EINVAL);
    ck_assert_int_eq(evpt_sys_file_read(folder.path, 10, &text, &size), -EISDIR);
    ck_assert_int_eq(evpt_sys_file_read(folder.file[1], 10, &text, &size), -ENOENT);
    remove_folder(&folder);
}
END_TEST

START_TEST(test_appending_keeps_what_is_there)
{
    struct folder folder;
    make_folder(&folder);
    for (int i = 0; i < 2; i++) {
        int fd = evpt_sys_file_append_open(folder.file[0]);
        ck_assert_int_ge(fd, 0);
        ck_assert_int_eq(evpt_sys_file_write_all(fd, "line\n", 5), 0);
        evpt_sys_close(fd);
    }
    assert_content(folder.file[0], "line\nline\n");
    remove_folder(&folder);
}
END_TEST

START_TEST(test_parent_folder_is_made_one_level_deep)
{
    struct folder folder;
    char path[300];
    make_folder(&folder);
    snprintf(path, sizeof(path), "%s/run.sock", folder.file[0]);
    ck_assert_int_eq(evpt_sys_make_parent(path), 0);
    ck_assert_uint_eq(mode_of(folder.file[0]), 0750);
    ck_assert_int_eq(evpt_sys_make_parent(path), 0); /* it is there */
    ck_assert_int_eq(rmdir(folder.file[0]), 0);
    snprintf(path, sizeof(path), "%s/deep/run.sock", folder.file[0]);
    ck_assert_int_eq(evpt_sys_make_parent(path), -ENOENT);
    ck_assert_int_eq(evpt_sys_file_replace(folder.file[1], "", 0), 0);
    snprintf(path, sizeof(path), "%s/run.sock", folder.file[1]);
    ck_assert_int_eq(evpt_sys_make_parent(path), -ENOTDIR);
    ck_assert_int_eq(evpt_sys_make_parent("run.sock"), 0);
    ck_assert_int_eq(evpt_sys_make_parent("/run.sock"), 0);
    remove_folder(&folder);
}
END_TEST

/* ---- waiting ---- */

START_TEST(test_eventfd_wait_sees_signals_and_its_deadline)
{
    int fd = evpt_sys_eventfd();
    ck_assert(!evpt_sys_eventfd_wait(fd, 0));
    ck_assert(!evpt_sys_eventfd_wait(fd, evpt_sys_now_ns() + EVPT_NS_PER_MS));
    evpt_sys_eventfd_signal(fd);
    evpt_sys_eventfd_signal(fd);
    ck_assert(evpt_sys_eventfd_wait(fd, EVPT_FOREVER));
    ck_assert(!evpt_sys_eventfd_wait(fd, 0)); /* it was cleared */
    evpt_sys_eventfd_signal(fd);
    evpt_sys_eventfd_clear(fd);
    evpt_sys_eventfd_clear(fd);
    ck_assert(!evpt_sys_eventfd_wait(fd, 0));
    evpt_sys_close(fd);
}
END_TEST

START_TEST(test_epoll_wait_is_never_early)
{
    int epoll = evpt_sys_epoll_new();
    struct evpt_sys_event event;
    for (uint64_t wait_ns = 1; wait_ns < 4 * EVPT_NS_PER_MS; wait_ns = wait_ns * 7 + 1) {
        uint64_t now_ns = evpt_sys_now_ns();
        ck_assert_int_eq(evpt_sys_epoll_wait(epoll, &event, 1, now_ns, now_ns + wait_ns), 0);
        ck_assert_uint_ge(evpt_sys_now_ns(), now_ns + wait_ns);
    }
    evpt_sys_close(epoll);
}
END_TEST

START_TEST(test_signals_are_read_from_a_descriptor)
{
    static const int signals[] = {SIGUSR1, SIGUSR2, 0};
    int fd = evpt_sys_signalfd(signals);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(evpt_sys_signalfd_read(fd), 0);
    ck_assert_int_eq(raise(SIGUSR2), 0);
    ck_assert_int_eq(evpt_sys_signalfd_read(fd), SIGUSR2);
    ck_assert_int_eq(evpt_sys_signalfd_read(fd), 0);
    evpt_sys_close(fd);
}
END_TEST

START_TEST(test_clocks_move_forward_and_random_bytes_differ)
{
    uint64_t now_ns = evpt_sys_now_ns(), cpu_ns = evpt_sys_thread_cpu_ns();
    uint8_t first[32] = {0}, second[32] = {0};
    ck_assert_uint_ne(now_ns, 0);
    ck_assert_int_gt(evpt_sys_wall_ns(), INT64_C(1600000000) * INT64_C(1000000000));
    evpt_sys_random(first, sizeof(first));
    evpt_sys_random(second, sizeof(second));
    ck_assert_mem_ne(first, second, sizeof(first));
    ck_assert_uint_ge(evpt_sys_now_ns(), now_ns);
    ck_assert_uint_ge(evpt_sys_thread_cpu_ns(), cpu_ns);
}
END_TEST

START_TEST(test_process_is_seen_as_the_system_sees_it)
{
    struct evpt_sys_process before, after;
    enum { MORE = 32 << 20 };
    evpt_sys_process(&before);
    int fd = evpt_sys_eventfd();
    char *memory = evpt_sys_alloc(MORE);
    ck_assert_ptr_nonnull(memory);
    memset(memory, 1, MORE);
    evpt_sys_process(&after);
    ck_assert_uint_eq(after.fds, before.fds + 1);
    ck_assert_uint_ge(after.fds_max, after.fds);
    ck_assert_uint_ge(after.threads, 1);
    ck_assert_uint_ge(after.cpu_ns, before.cpu_ns + 1);
    ck_assert_uint_ge(after.resident_bytes, before.resident_bytes + MORE / 2);
    ck_assert_uint_ge(after.virtual_bytes, after.resident_bytes);
    int64_t age_ns = evpt_sys_wall_ns() - after.started_ns;
    ck_assert_int_ge(age_ns, 0);
    ck_assert_int_lt(age_ns, 3600 * INT64_C(1000000000));
    evpt_sys_free(memory);
    evpt_sys_close(fd);
}
END_TEST

/* ---- datagrams ---- */

static int bind_datagram(const char *name, size_t size)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    memcpy(addr.sun_path, name, size);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&addr,
                          (socklen_t)(offsetof(struct sockaddr_un, sun_path) + size)),
                     0);
    return fd;
}

START_TEST(test_datagram_reaches_a_path_and_an_abstract_name)
{
    char path[64], abstract[64], text[16];
    snprintf(path, sizeof(path), "/tmp/evpt-test-%d.sock", (int)getpid());
    int length = snprintf(abstract, sizeof(abstract), "@evpt-test-%d", (int)getpid());
    int by_path = bind_datagram(path, strlen(path) + 1);
    ck_assert_int_eq(evpt_sys_send_datagram(path, "READY=1", 7), 0);
    ck_assert_int_eq(read(by_path, text, sizeof(text)), 7);
    ck_assert_mem_eq(text, "READY=1", 7);
    abstract[0] = 0;
    int by_name = bind_datagram(abstract, (size_t)length); /* the name is these bytes, no more */
    abstract[0] = '@';
    ck_assert_int_eq(evpt_sys_send_datagram(abstract, "a", 1), 0);
    ck_assert_int_eq(evpt_sys_send_datagram(abstract, "bc", 2), 0);
    ck_assert_int_eq(read(by_name, text, sizeof(text)), 1);
    ck_assert_int_eq(read(by_name, text, sizeof(text)), 2);
    close(by_path);
    close(by_name);
    ck_assert_int_eq(evpt_sys_send_datagram(path, "x", 1), -ECONNREFUSED);
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(evpt_sys_send_datagram(path, "x", 1), -ENOENT);
    ck_assert_int_eq(evpt_sys_send_datagram(abstract, "x", 1), -ECONNREFUSED);
}
END_TEST

START_TEST(test_datagram_to_no_name_is_refused)
{
    char longest[200];
    memset(longest, 'x', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = 0;
    ck_assert_int_eq(evpt_sys_send_datagram("", "x", 1), -EINVAL);
    ck_assert_int_eq(evpt_sys_send_datagram("@", "x", 1), -EINVAL);
    ck_assert_int_eq(evpt_sys_send_datagram(longest, "x", 1), -ENAMETOOLONG);
}
END_TEST

/* ... and not for ever: the system keeps about ten of them. */
START_TEST(test_datagram_waits_for_a_receiver_that_is_behind)
{
    char name[64], text[16];
    int length = snprintf(name, sizeof(name), "@evpt-test-%d", (int)getpid()), sent = 0, error;
    name[0] = 0;
    int fd = bind_datagram(name, (size_t)length);
    name[0] = '@';
    while ((error = evpt_sys_send_datagram(name, "x", 1)) == 0)
        ck_assert_int_lt(++sent, 100000);
    ck_assert_int_eq(error, -EAGAIN);
    ck_assert_int_eq(read(fd, text, sizeof(text)), 1);
    ck_assert_int_eq(evpt_sys_send_datagram(name, "x", 1), 0);
    close(fd);
}
END_TEST

SUPPORT_MAIN("reactor/sys", test_address_text_survives_the_round_trip,
             test_malformed_addresses_are_refused_and_leave_the_result_alone,
             test_local_address_must_fit, test_loopback_and_port_are_recognised,
             test_both_ends_of_a_connection_are_set_up, test_keepalive_takes_periods_of_any_length,
             test_occupied_address_is_refused, test_connection_to_itself_counts_as_refused,
             test_write_to_a_closed_peer_is_an_error_and_no_signal,
             test_user_at_the_other_end_is_known_of_local_sockets_only,
             test_reads_and_writes_work_on_pipes_too,
             test_local_socket_is_private_and_a_stale_one_is_replaced,
             test_file_in_the_place_of_a_local_socket_is_not_touched,
             test_file_is_replaced_as_a_whole_and_keeps_its_mode,
             test_replacement_of_a_symbolic_link_writes_what_it_leads_to,
             test_failed_replacement_leaves_nothing_behind,
             test_file_larger_than_allowed_is_refused, test_file_of_unknown_size_is_read_to_its_end,
             test_only_regular_files_are_read, test_appending_keeps_what_is_there,
             test_parent_folder_is_made_one_level_deep,
             test_eventfd_wait_sees_signals_and_its_deadline, test_epoll_wait_is_never_early,
             test_signals_are_read_from_a_descriptor,
             test_clocks_move_forward_and_random_bytes_differ,
             test_process_is_seen_as_the_system_sees_it,
             test_datagram_reaches_a_path_and_an_abstract_name, test_datagram_to_no_name_is_refused,
             test_datagram_waits_for_a_receiver_that_is_behind)
