#include "tools/evpt_bench/local.h"

#include "reactor/error.h"
#include "tools/evpt_bench/complain.h"
#include "tools/evpt_bench/system.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define STOP_NS (5 * EVPT_NS_PER_S) /* for both nodes; then SIGKILL */
#define LOG_TAIL 4096

static const char list_file[] = "clustername.lua";

static void path_in(const struct bench_local *local, const char *name, const char *suffix,
                    char path[512])
{
    snprintf(path, 512, "%s/%s%s", local->folder, name, suffix);
}

/* ---- where things are ---- */

/* The folder of this program. 0 or -errno. */
static int find_own_folder(char *folder, size_t size)
{
    ssize_t length = readlink("/proc/self/exe", folder, size - 1);
    if (length < 0)
        return -errno;
    if ((size_t)length == size - 1) /* cut */
        return -ENAMETOOLONG;
    folder[length] = 0;
    char *slash = strrchr(folder, '/');
    *(slash ? slash : folder) = 0;
    return 0;
}

/* ---- ports ---- */

static int hold_port(struct bench_node *node)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int on = 1;
    node->port_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (node->port_fd < 0 ||
        setsockopt(node->port_fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
        bind(node->port_fd, (struct sockaddr *)&addr, sizeof(addr)) != 0)
        return -errno;
    return evpt_sys_local_addr(node->port_fd, &node->addr);
}

void bench_local_is_up(struct bench_node *node)
{
    evpt_sys_close(node->port_fd);
    node->port_fd = -1;
}

/* ---- files ---- */

static int write_file(const struct bench_local *local, const char *name, const char *suffix,
                      const char *text)
{
    char path[512];
    path_in(local, name, suffix, path);
    return evpt_sys_file_replace(path, text, strlen(text));
}

static void print_escaped(FILE *out, const char *text)
{
    for (; *text; text++)
        fprintf(out, *text == '"' || *text == '\\' ? "\\%c" : "%c", *text);
}

/* Where our scripts and the module are: beside this program in a build folder, or installed. */
static void print_templates(FILE *out, const char *key, const char *own, const char *suffix)
{
    fprintf(out, "%s = \"", key);
    print_escaped(out, own);
    fprintf(out, "/evpt_bench/?.%s;", suffix);
    print_escaped(out, own);
    fprintf(out, "/%s/?.%s\"\n", BENCH_LIB_FROM_BIN, suffix);
}

/* The folder as it is from here: nodes would start at their configuration's. */
static void print_tls(FILE *out, const char *folder)
{
    char path[PATH_MAX];
    if (!folder || !realpath(folder, path)) /* main.c has read files there */
        return;
    fputs("tls = { verify_name = true", out);
    static const struct {
        const char *key, *file;
    } files[] = {{"cert", "%s.crt"}, {"key", "%s.key"}, {"ca", "ca.crt"}};
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        fprintf(out, ", %s = \"", files[i].key);
        print_escaped(out, path);
        fprintf(out, "/%s\"", files[i].file);
    }
    fputs(" }\n", out);
}

static void print_services(FILE *out, const struct bench_options *options,
                           const struct bench_node *node)
{
    fputs("services = {\n", out);
    if (node->echoes && options->services == 1)
        fputs("\"bench_echo\",\n", out);
    for (uint64_t i = 1; node->echoes && options->services > 1 && i <= options->services; i++)
        fprintf(out, "{ \"bench_echo\", name = \"bench_echo_%" PRIu64 "\" },\n", i);
    if (node->echoes && options->beside)
        fputs("{ \"bench_echo\", name = \"bench_echo_beside\" },\n", out);
    if (node->drives && options->beside)
        fputs("\"bench_beside\",\n", out);
    if (node->drives)
        fputs("\"bench_driver\",\n", out);
    fputs("}\n", out);
}

static void print_config(FILE *out, const struct bench_options *options, const char *own,
                         const struct bench_node *node)
{
    uint64_t size_max = options->size_max > options->beside ? options->size_max : options->beside;
    uint64_t message_max = size_max + 4096; /* the rest of a request is far less */
    fprintf(out, "clustername = \"%s\"\n", list_file);
    print_templates(out, "path", own, "lua");
    print_templates(out, "cpath", own, "so");
    print_services(out, options, node);
    fputs("admin = false\nlog = { level = \"warn\" }\n", out);
    print_tls(out, options->tls);
    fprintf(out, "cluster = { call_timeout_ms = %llu",
            (unsigned long long)(options->timeout_ns / EVPT_NS_PER_MS));
    if (message_max > 16777216) /* the default */
        fprintf(out, ", message_max = %llu, send_buffer_max = %llu",
                (unsigned long long)message_max, (unsigned long long)message_max * 4);
    fputs(" }\n", out);
}

static int write_config(const struct bench_local *local, const struct bench_options *options,
                        const char *own, const struct bench_node *node)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return -ENOMEM;
    print_config(out, options, own, node);
    int error = fclose(out) == 0 ? write_file(local, node->name, ".lua", text) : -ENOMEM;
    free(text); /* open_memstream's */
    return error;
}

static int write_list(const struct bench_local *local, const struct bench_options *options,
                      const struct bench_peers *peers)
{
    char *text = NULL, addr[EVPT_ADDR_TEXT_SIZE];
    size_t size;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return -ENOMEM;
    if (options->tls) /* we listen nowhere, but only who is in the list may connect */
        fputs("evpt_bench = false\n", out);
    for (unsigned i = 0; i < local->count; i++)
        fprintf(out, "%s = \"%s\"\n", local->nodes[i].name,
                evpt_addr_format(&local->nodes[i].addr, addr, sizeof(addr)));
    bench_peers_print_list(peers, out);
    int error = fclose(out) == 0 ? write_file(local, list_file, "", text) : -ENOMEM;
    free(text); /* open_memstream's */
    return error;
}

static int make_folder(struct bench_local *local)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(local->folder, sizeof(local->folder), "%s/evpt-bench-XXXXXX",
             tmp && *tmp ? tmp : "/tmp");
    if (mkdtemp(local->folder))
        return 0;
    int error = -errno;
    local->folder[0] = 0;
    return error;
}

static void remove_folder(struct bench_local *local)
{
    char path[512];
    if (!local->folder[0])
        return;
    path_in(local, list_file, "", path);
    (void)unlink(path); /* what was not made is not there */
    for (unsigned i = 0; i < local->count; i++) {
        path_in(local, local->nodes[i].name, ".lua", path);
        (void)unlink(path);
        path_in(local, local->nodes[i].name, ".log", path);
        (void)unlink(path);
    }
    if (rmdir(local->folder) != 0)
        bench_complain("%s: cannot be removed: %s", local->folder, strerror(errno));
    local->folder[0] = 0;
}

/* ---- processes ---- */

/* In the child, which may do anything that the parent could: there was one thread. */
static void run_node(const struct bench_local *local, const struct bench_options *options,
                     const char *own, const struct bench_node *node, pid_t parent)
{
    char program[PATH_MAX + 8], config[512], log[512];
    const char **argv = evpt_sys_zalloc((2 * options->set_count + 8) * sizeof(*argv));
    size_t argc = 0;
    sigset_t none;
    snprintf(program, sizeof(program), "%s/evpt", own);
    path_in(local, node->name, ".lua", config);
    path_in(local, node->name, ".log", log);
    if (!argv)
        _exit(127);
    argv[argc++] = program;
    argv[argc++] = "-c";
    argv[argc++] = config;
    for (size_t i = 0; i < options->set_count; i++) {
        argv[argc++] = "-s";
        argv[argc++] = options->sets[i];
    }
    argv[argc++] = node->name;
    int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    int null = open("/dev/null", O_RDONLY);
    if (fd < 0 || null < 0 || dup2(null, 0) < 0 || dup2(fd, 1) < 0 || dup2(fd, 2) < 0)
        _exit(127);
    (void)setpgid(0, 0);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    bench_default_timers();
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (getppid() == parent) /* else it has died before the prctl */
        execv(program, (char **)argv);
    dprintf(2, "cannot run %s: %s\n", program, strerror(errno));
    _exit(127);
}

static int spawn(const struct bench_local *local, const struct bench_options *options,
                 const char *own, struct bench_node *node)
{
    pid_t parent = getpid();
    fflush(NULL); /* or the child has the text, too */
    pid_t pid = fork();
    if (pid < 0)
        return -errno;
    if (pid == 0)
        run_node(local, options, own, node, parent);
    node->pid = pid;
    return 0;
}

int bench_local_start(struct bench_local *local, const struct bench_options *options,
                      const struct bench_peers *peers)
{
    bool one = options->where == BENCH_LOCAL_ONE;
    struct bench_node driver = {.name = "bench_a", .drives = true, .echoes = one, .port_fd = -1};
    struct bench_node echo = {.name = "bench_b", .echoes = true, .port_fd = -1};
    char own[PATH_MAX];
    *local = (struct bench_local){.count = one || peers ? 1 : 2, .nodes = {driver, echo}};
    int error = find_own_folder(own, sizeof(own));
    if (!error)
        error = make_folder(local);
    for (unsigned i = 0; !error && i < local->count; i++)
        error = hold_port(&local->nodes[i]);
    if (!error)
        error = write_list(local, options, peers);
    for (unsigned i = 0; !error && i < local->count; i++)
        error = write_config(local, options, own, &local->nodes[i]);
    for (unsigned i = 0; !error && i < local->count; i++)
        error = spawn(local, options, own, &local->nodes[i]);
    if (error)
        bench_complain("--local: cannot start nodes: %s", evpt_strerror(error));
    return error ? -1 : 0;
}

/* The first line of the node's log that says why it has ended, else the last line. */
static void complain_with_log(const struct bench_local *local, const struct bench_node *node)
{
    char path[512], *text;
    size_t size;
    const char *line = "";
    path_in(local, node->name, ".log", path);
    if (evpt_sys_file_read(path, 1 << 20, &text, &size) != 0) {
        bench_complain("--local: %s has ended, and left no log", node->name);
        return;
    }
    char *rest = text;
    for (char *at; (at = strsep(&rest, "\n"));) {
        if (*at)
            line = at;
        if (strncmp(at, "evpt: ", 6) == 0)
            break;
    }
    bench_complain("--local: %s has ended: %s", node->name, line);
    evpt_sys_free(text);
}

bool bench_local_check(struct bench_local *local)
{
    for (unsigned i = 0; i < local->count; i++) {
        struct bench_node *node = &local->nodes[i];
        if (!node->pid || waitpid(node->pid, NULL, WNOHANG) == 0)
            continue;
        node->pid = 0;
        complain_with_log(local, node);
        return false;
    }
    return true;
}

/* Waits for the process until the deadline; true: it has ended. */
static bool reap(pid_t pid, uint64_t deadline_ns)
{
    while (waitpid(pid, NULL, WNOHANG) == 0) {
        if (evpt_sys_now_ns() >= deadline_ns)
            return false;
        const struct timespec pause = {.tv_nsec = 2000000};
        nanosleep(&pause, NULL);
    }
    return true;
}

void bench_local_stop(struct bench_local *local)
{
    uint64_t deadline_ns = evpt_sys_now_ns() + STOP_NS;
    for (unsigned i = 0; i < local->count; i++) {
        struct bench_node *node = &local->nodes[i];
        bench_local_is_up(node);
        if (node->pid)
            (void)kill(node->pid, SIGTERM);
    }
    for (unsigned i = 0; i < local->count; i++) {
        struct bench_node *node = &local->nodes[i];
        if (node->pid && !reap(node->pid, deadline_ns)) {
            (void)kill(node->pid, SIGKILL);
            (void)waitpid(node->pid, NULL, 0);
            bench_complain("--local: %s did not stop in order, and was killed", node->name);
        }
        node->pid = 0;
    }
    remove_folder(local);
}
