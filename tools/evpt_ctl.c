/* evpt-ctl: the GM console, from the outside. One verb, one answer, one exit status.
 *
 * The admin socket of a node speaks the protocol that nodes speak (SPEC section 5), so this program
 * is a plain peer: it sends one request to the service `console` and waits for the one reply,
 *
 *     [1, "console", VERB, [ARGS..., {"json": bool}], {1: timeout_ms}]  ->  [3, 0, [status, text]]
 *
 * and knows nothing of the verbs, apart from `rewrite`, whose file it reads here, where the user
 * is. A verb that a node learns later works without a new evpt-ctl.
 */
#include "cluster/frame.h"
#include "cluster/msgpack.h"
#include "reactor/error.h"
#include "reactor/sys.h"

#include <assert.h>
#include <errno.h>
#include <getopt.h>
#include <glob.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SESSION 1                    /* one request on the connection: any number but 0 will do */
#define TIMEOUT_MS_DEFAULT 15000     /* longer than a node takes to drain (stop_timeout_ms) */
#define TIMEOUT_MS_MAX 86400000      /* a day */
#define FILE_MAX ((size_t)16 << 20)  /* what a node takes in one message by default */
#define REPLY_MAX ((size_t)64 << 20) /* bounds what a broken node can make us allocate */
#define READ_SIZE ((size_t)64 << 10) /* more than one frame, so each read brings one to an end */
#define SOCKET_PATH_MAX 256          /* a socket's path is shorter: sun_path has 108 bytes */

enum { EXIT_USAGE = 2, STDIN_FD = 0 };

struct options {
    const char *socket, *node, *dir;
    bool json;
    int64_t timeout_ms;
    const char *verb;
    char **args;
    int arg_count;
};

/* Bytes that grow. */
struct bytes {
    uint8_t *data;
    size_t size, capacity;
};

/* The connection: non-blocking underneath, waited for in `epoll`, never longer than the deadline.
 */
struct link {
    int fd, epoll;
    uint64_t deadline_ns;
};

static const char usage_text[] =
    "usage: evpt-ctl [-s SOCKET | -n NODE [-C DIR]] [--json] [--timeout MS] VERB [ARGS...]\n";

static const char help_text[] =
    "\n"
    "Talks to a running node over its admin socket.\n"
    "\n"
    "  -s, --socket SOCKET   path of the admin socket\n"
    "  -n, --node NODE       the node's name: the socket is run/NODE.sock\n"
    "  -C, --directory DIR   where run/ is, default: the working directory\n"
    "      --json            answer as JSON; may also stand behind the verb\n"
    "      --timeout MS      how long to wait for the answer, default 15000\n"
    "      --version, -h, --help\n"
    "\n"
    "Without -s and -n it takes the only socket in run/.\n"
    "\n"
    "  nodes          the cluster as this node sees it: address, status, what is in flight\n"
    "  services       the services of this node\n"
    "  reload         read the node list again\n"
    "  rewrite FILE   replace the node list by FILE (- is standard input), then reload\n"
    "  update NAME    put the code of a script, service or module in place of what runs\n"
    "  stop           drain and stop the node\n"
    "\n"
    "Any other verb goes to the node as it is. Exit status: 0 done, 1 failed, 2 usage.\n";

/* One line on stderr; returns the exit status for "failed". */
__attribute__((format(printf, 1, 2))) static int fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("evpt-ctl: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    return EXIT_FAILURE;
}

/* ---- arguments ---- */

static int usage_error(const char *what, const char *detail)
{
    fprintf(stderr, "evpt-ctl: %s%s%s\n%s", what, detail ? ": " : "", detail ? detail : "",
            usage_text);
    return EXIT_USAGE;
}

static bool parse_timeout(const char *text, int64_t *ret_ms)
{
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (errno || end == text || *end || value < 1 || value > TIMEOUT_MS_MAX)
        return false;
    *ret_ms = value;
    return true;
}

/* `--json` is an option behind the verb too (up to a `--`): that is where one adds it to a line
 * that is there. */
static void take_verb(struct options *options, char **args, int count)
{
    options->verb = args[0];
    options->args = args + 1;
    bool more_options = true;
    for (int i = 1; i < count; i++) {
        if (more_options && strcmp(args[i], "--json") == 0) {
            options->json = true;
        } else if (more_options && strcmp(args[i], "--") == 0) {
            more_options = false;
        } else {
            options->args[options->arg_count++] = args[i];
        }
    }
}

/* 0: go on with *ret_options; -1: all is said, *ret_status is the exit status. */
static int parse_options(struct options *ret_options, int argc, char **argv, int *ret_status)
{
    enum { JSON = 256, TIMEOUT, VERSION };
    static const struct option known[] = {
        {"socket", required_argument, NULL, 's'},
        {"node", required_argument, NULL, 'n'},
        {"directory", required_argument, NULL, 'C'},
        {"json", no_argument, NULL, JSON},
        {"timeout", required_argument, NULL, TIMEOUT},
        {"version", no_argument, NULL, VERSION},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    struct options options = {.dir = NULL, .timeout_ms = TIMEOUT_MS_DEFAULT};
    *ret_status = EXIT_USAGE;
    for (int c; (c = getopt_long(argc, argv, "+s:n:C:h", known, NULL)) != -1;) {
        switch (c) {
        case 's':
            options.socket = optarg;
            break;
        case 'n':
            options.node = optarg;
            break;
        case 'C':
            options.dir = optarg;
            break;
        case JSON:
            options.json = true;
            break;
        case TIMEOUT:
            if (!parse_timeout(optarg, &options.timeout_ms)) {
                *ret_status = usage_error("--timeout: expected milliseconds, 1 to 86400000", NULL);
                return -1;
            }
            break;
        case VERSION:
            puts("evpt-ctl " EVPT_VERSION);
            *ret_status = EXIT_SUCCESS;
            return -1;
        case 'h':
            printf("%s%s", usage_text, help_text);
            *ret_status = EXIT_SUCCESS;
            return -1;
        default: /* getopt has said what is wrong */
            fputs(usage_text, stderr);
            return -1;
        }
    }
    if (options.socket && (options.node || options.dir)) {
        *ret_status = usage_error("-s gives the whole path: no -n or -C with it", NULL);
        return -1;
    }
    if (optind == argc) {
        *ret_status = usage_error("no verb", NULL);
        return -1;
    }
    take_verb(&options, argv + optind, argc - optind);
    if (strcmp(options.verb, "rewrite") == 0 && options.arg_count != 1) {
        *ret_status = usage_error("rewrite", "expected one FILE");
        return -1;
    }
    *ret_options = options;
    return 0;
}

/* The path of the socket into `path` (SOCKET_PATH_MAX bytes): as given, by the node's name, or the
 * only one there is. */
static int find_socket(const struct options *options, char *path)
{
    const char *dir = options->dir ? options->dir : "";
    const char *slash = options->dir ? "/" : "";
    const char *node = options->node ? options->node : "*";
    int length = options->socket
                     ? snprintf(path, SOCKET_PATH_MAX, "%s", options->socket)
                     : snprintf(path, SOCKET_PATH_MAX, "%s%srun/%s.sock", dir, slash, node);
    if (length < 0 || length >= SOCKET_PATH_MAX)
        return fail("the path of the socket is too long");
    if (options->socket || options->node)
        return 0;

    glob_t found;
    int status = 0;
    int error = glob(path, 0, NULL, &found);
    if (error == GLOB_NOMATCH) {
        status = fail("%s: no node runs here; name one with -n NODE or -s SOCKET", path);
    } else if (error) {
        status = fail("%s: cannot be read", path);
    } else if (found.gl_pathc > 1) {
        status = fail("%s: %zu sockets are here; name one with -n NODE", path, found.gl_pathc);
    } else {
        length = snprintf(path, SOCKET_PATH_MAX, "%s", found.gl_pathv[0]);
        if (length < 0 || length >= SOCKET_PATH_MAX)
            status = fail("the path of the socket is too long");
    }
    if (!error)
        globfree(&found);
    return status;
}

/* ---- bytes ---- */

/* Room for `more` bytes behind size (and memory at all, even for none); false where it is refused.
 */
static bool bytes_reserve(struct bytes *bytes, size_t more)
{
    if (bytes->data && bytes->capacity - bytes->size >= more)
        return true;
    size_t capacity = bytes->capacity ? bytes->capacity : READ_SIZE;
    while (capacity - bytes->size < more)
        capacity *= 2;
    uint8_t *data = evpt_sys_realloc(bytes->data, capacity);
    if (!data)
        return false;
    bytes->data = data;
    bytes->capacity = capacity;
    return true;
}

static int read_stdin(struct bytes *text)
{
    for (;;) {
        if (!bytes_reserve(text, READ_SIZE))
            return -ENOMEM;
        ssize_t count = evpt_sys_read(STDIN_FD, text->data + text->size, READ_SIZE);
        if (count <= 0)
            return (int)count;
        text->size += (size_t)count;
        if (text->size > FILE_MAX)
            return -EFBIG;
    }
}

static int read_file(struct bytes *text, const char *path)
{
    if (strcmp(path, "-") == 0)
        return read_stdin(text);
    char *data;
    int error = evpt_sys_file_read(path, FILE_MAX, &data, &text->size);
    if (error < 0)
        return error;
    text->data = (uint8_t *)data;
    text->capacity = text->size;
    return 0;
}

/* The request's data. `file`: what stands for the only argument, or NULL. */
static bool build_request(struct bytes *ret_request, const struct options *options,
                          const struct bytes *file)
{
    size_t room = 64 + strlen(options->verb) + (file ? file->size : 0); /* 64: all that is fixed */
    for (int i = 0; i < options->arg_count; i++)
        room += strlen(options->args[i]) + EVPT_ITEM_MAX;
    if (!bytes_reserve(ret_request, room))
        return false;

    struct evpt_writer writer;
    evpt_writer_init(&writer, ret_request->data, ret_request->capacity);
    bool fits = evpt_write_array(&writer, 5) && evpt_write_int(&writer, 1) &&
                evpt_write_str(&writer, "console", 7) &&
                evpt_write_str(&writer, options->verb, strlen(options->verb)) &&
                evpt_write_array(&writer, (uint32_t)options->arg_count + 1);
    for (int i = 0; i < options->arg_count; i++)
        fits = fits && (file ? evpt_write_str(&writer, file->data, file->size)
                             : evpt_write_str(&writer, options->args[i], strlen(options->args[i])));
    fits = fits && evpt_write_map(&writer, 1) && evpt_write_str(&writer, "json", 4) &&
           evpt_write_bool(&writer, options->json) && evpt_write_map(&writer, 1) &&
           evpt_write_int(&writer, 1) && evpt_write_int(&writer, options->timeout_ms);
    assert(fits);
    ret_request->size = (size_t)(writer.at - ret_request->data);
    return true;
}

/* ---- the connection ---- */

/* Waits until the socket can be read or written. 0, -EVPT_ETIMEOUT or -errno. */
static int link_wait(struct link *link, uint32_t events)
{
    int error = evpt_sys_epoll_set(link->epoll, EVPT_EPOLL_CHANGE, link->fd, events, 0);
    while (error == 0) {
        uint64_t now_ns = evpt_sys_now_ns();
        if (now_ns >= link->deadline_ns)
            return -EVPT_ETIMEOUT;
        struct evpt_sys_event event;
        error = evpt_sys_epoll_wait(link->epoll, &event, 1, now_ns, link->deadline_ns);
    }
    return error < 0 ? error : 0;
}

static int link_open(struct link *link, const char *path, int64_t timeout_ms)
{
    link->deadline_ns = evpt_sys_now_ns() + (uint64_t)timeout_ms * EVPT_NS_PER_MS;
    struct evpt_addr addr;
    int error = evpt_addr_local(&addr, path);
    if (error < 0)
        return error;
    link->epoll = evpt_sys_epoll_new();
    if (link->epoll < 0)
        return link->epoll;
    link->fd = evpt_sys_connect(&addr);
    if (link->fd < 0)
        return link->fd;
    error = evpt_sys_epoll_set(link->epoll, EVPT_EPOLL_ADD, link->fd, EVPT_WRITE, 0);
    if (error == 0)
        error = link_wait(link, EVPT_WRITE);
    return error < 0 ? error : evpt_sys_connect_result(link->fd);
}

static int link_write(struct link *link, const uint8_t *data, size_t size)
{
    while (size > 0) {
        ssize_t count = evpt_sys_write(link->fd, data, size);
        if (count == -EAGAIN) {
            int error = link_wait(link, EVPT_WRITE);
            if (error < 0)
                return error;
        } else if (count < 0) {
            return (int)count;
        } else {
            data += count;
            size -= (size_t)count;
        }
    }
    return 0;
}

/* Cuts the message into frames and writes them. */
static int send_message(struct link *link, const struct bytes *message)
{
    size_t sent = 0;
    do {
        size_t rest = message->size - sent;
        size_t part = rest < EVPT_FRAME_DATA_MAX ? rest : EVPT_FRAME_DATA_MAX;
        enum evpt_frame_flag flag = sent == 0     ? EVPT_FRAME_FIRST
                                    : part < rest ? EVPT_FRAME_MIDDLE
                                                  : EVPT_FRAME_LAST;
        if (part == message->size)
            flag = EVPT_FRAME_WHOLE;
        uint8_t header[EVPT_FRAME_HEADER];
        evpt_frame_write_header(header, flag, SESSION, part);
        int error = link_write(link, header, sizeof header);
        if (error == 0)
            error = link_write(link, message->data + sent, part);
        if (error < 0)
            return error;
        sent += part;
    } while (sent < message->size);
    return 0;
}

/* Adds a frame to the reply. 1: it is complete; 0: more frames follow; or a negative error. */
static int take_frame(struct bytes *reply, bool *started, const struct evpt_frame *frame)
{
    if (frame->flag >= EVPT_FRAME_HELLO)
        return 0; /* none is owed to a plain peer, and none is our business */
    bool first = frame->flag == EVPT_FRAME_WHOLE || frame->flag == EVPT_FRAME_FIRST;
    if (frame->session != SESSION || first == *started)
        return -EVPT_EPROTOCOL;
    if (reply->size + frame->size > REPLY_MAX)
        return -EVPT_ETOOLARGE;
    if (!bytes_reserve(reply, frame->size))
        return -ENOMEM;
    if (frame->size > 0)
        memcpy(reply->data + reply->size, frame->data, frame->size);
    reply->size += frame->size;
    *started = true;
    return frame->flag == EVPT_FRAME_WHOLE || frame->flag == EVPT_FRAME_LAST;
}

/* Reads frames until the reply is whole. `input` keeps what has been read and not been used. */
static int receive_message(struct link *link, struct bytes *input, struct bytes *reply)
{
    bool started = false;
    for (;;) {
        size_t used = 0;
        for (;;) {
            struct evpt_frame frame;
            const char *reason;
            ssize_t count =
                evpt_frame_read(&frame, input->data + used, input->size - used, &reason);
            if (count < 0)
                return (int)count;
            if (count == 0)
                break;
            used += (size_t)count;
            int done = take_frame(reply, &started, &frame);
            if (done)
                return done;
        }
        memmove(input->data, input->data + used, input->size - used);
        input->size -= used;

        ssize_t count =
            evpt_sys_read(link->fd, input->data + input->size, input->capacity - input->size);
        if (count == 0)
            return -EVPT_EEOF;
        if (count == -EAGAIN)
            count = link_wait(link, EVPT_READ);
        if (count < 0)
            return (int)count;
        input->size += (size_t)count;
    }
}

/* ---- the answer ---- */

static int broken_reply(const char *path)
{
    return fail("%s: the reply has another form than expected", path);
}

/* An error of the node itself, not of the verb: one line, whatever is in the text. */
static int print_refusal(int64_t code, const char *text, uint32_t size)
{
    const char *line_end = size ? memchr(text, '\n', size) : NULL;
    int length = (int)(line_end ? line_end - text : (ptrdiff_t)size);
    return fail("%.*s (code %lld)", length, text, (long long)code);
}

static int print_text(int status, const char *text, uint32_t size)
{
    FILE *out = status == 0 ? stdout : stderr;
    if (size > 0)
        fwrite(text, 1, size, out);
    if (size > 0 && text[size - 1] != '\n')
        fputc('\n', out);
    if (fflush(out) != 0 || ferror(out))
        return fail("cannot write the answer: %s", evpt_strerror(-errno));
    return status;
}

/* Prints `[3, 0, [status, text]]` or `[3, code, [message]]`; returns the exit status. */
static int print_reply(const struct bytes *reply, const char *path)
{
    struct evpt_reader reader;
    evpt_reader_init(&reader, reply->data, reply->size);
    uint32_t count, result_count, size = 0;
    int64_t kind, code, status;
    const char *text = "";
    if (evpt_read_array(&reader, &count) < 0 || count < 3 || evpt_read_int(&reader, &kind) < 0 ||
        kind != 3 || evpt_read_int(&reader, &code) < 0 ||
        evpt_read_array(&reader, &result_count) < 0)
        return broken_reply(path);
    if (code != 0) {
        if (result_count > 0 && evpt_read_str(&reader, &text, &size) < 0)
            return broken_reply(path);
        return print_refusal(code, text, size);
    }
    if (result_count < 2 || evpt_read_int(&reader, &status) < 0 || status < 0 || status > 255 ||
        evpt_read_str(&reader, &text, &size) < 0)
        return broken_reply(path);
    return print_text((int)status, text, size);
}

/* ---- all together ---- */

static int talk(const struct options *options, const char *path, const struct bytes *request)
{
    struct link link = {.fd = -1, .epoll = -1};
    struct bytes input = {.data = NULL}, reply = {.data = NULL};
    int status;
    int error = link_open(&link, path, options->timeout_ms);
    if (error < 0) {
        status = error == -EVPT_ETIMEOUT
                     ? fail("%s: the node does not answer", path)
                     : fail("%s: no node there: %s", path, evpt_strerror(error));
    } else {
        error = bytes_reserve(&input, READ_SIZE) ? send_message(&link, request) : -ENOMEM;
        if (error == 0)
            error = receive_message(&link, &input, &reply);
        if (error == -EVPT_ETIMEOUT) {
            status = fail("%s: no answer within %lld ms", path, (long long)options->timeout_ms);
        } else if (error < 0) {
            status = fail("%s: no answer: %s", path, evpt_strerror(error));
        } else {
            status = print_reply(&reply, path);
        }
    }
    evpt_sys_close(link.fd);
    evpt_sys_close(link.epoll);
    evpt_sys_free(input.data);
    evpt_sys_free(reply.data);
    return status;
}

int main(int argc, char **argv)
{
    struct options options;
    int status;
    if (parse_options(&options, argc, argv, &status) < 0)
        return status;

    struct bytes file = {.data = NULL}, request = {.data = NULL};
    char path[SOCKET_PATH_MAX];
    bool rewrite = strcmp(options.verb, "rewrite") == 0;
    int error = rewrite ? read_file(&file, options.args[0]) : 0;
    if (error < 0) {
        status = fail("%s: %s", options.args[0], evpt_strerror(error));
    } else if ((status = find_socket(&options, path)) != 0) {
        /* said already */
    } else if (!build_request(&request, &options, rewrite ? &file : NULL)) {
        status = fail("%s", evpt_strerror(-ENOMEM));
    } else {
        status = talk(&options, path, &request);
    }
    evpt_sys_free(file.data);
    evpt_sys_free(request.data);
    return status;
}
