/* evpt: the node. Options, signals, start and stop; everything else is below.
 *
 *     starting --"started"--> running --TERM, INT, console--> stopping --"stopped"--> ended
 *        | a service failed                  second signal, stop_timeout_ms |
 *        +--------------------------------> ended <------------------------+
 */
#include "cluster/msgpack.h"
#include "lua/config_load.h"
#include "lua/vm.h"
#include "reactor/error.h"
#include "service_manager.h"
#include "services/monitor.h"
#include "services/request.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

/* Sessions of the main thread's own calls. */
enum { SESSION_START = 1, SESSION_RELOAD };

enum phase { STARTING, RUNNING, STOPPING, ENDED };

struct options {
    const char *node, *config, *pidfile;
    const char **sets;
    size_t set_count;
    bool check;
};

struct program {
    struct options options;
    struct evpt_config config;
    struct evpt_node node;
    struct evpt_prober prober;
    struct evpt_monitor monitor;
    struct service_manager manager;
    struct evpt_watch signals;
    struct evpt_timer stop_timer;
    uint64_t stop_by_ns; /* since it is stopping */
    int signal_fd;
    uint32_t launcher, console;
    enum phase phase;
    int status;
    bool at_once; /* do not wait for anything any more */
    bool admin_open, pidfile_written, start_failed;
};

static const char usage[] =
    "usage: evpt [options] NODENAME\n"
    "  -c, --config FILE    node configuration (default: evpt.lua, or built-in defaults without "
    "it)\n"
    "  -s, --set KEY=VALUE  override one configuration key, e.g. log.level=debug\n"
    "      --check          check configuration and node list, print every problem, start nothing\n"
    "      --pidfile FILE   write the process id there while the node runs\n"
    "      --version\n"
    "  -h, --help\n";

/* ---- options ---- */

static int parse_options(int argc, char **argv, struct options *options)
{
    enum { OPT_CHECK = 256, OPT_PIDFILE, OPT_VERSION };
    static const struct option longs[] = {
        {"config", required_argument, NULL, 'c'},
        {"set", required_argument, NULL, 's'},
        {"check", no_argument, NULL, OPT_CHECK},
        {"pidfile", required_argument, NULL, OPT_PIDFILE},
        {"version", no_argument, NULL, OPT_VERSION},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    int option;
    options->sets = calloc((size_t)argc + 1, sizeof(*options->sets));
    if (!options->sets)
        return EXIT_FAILED;
    while ((option = getopt_long(argc, argv, "c:s:h", longs, NULL)) != -1) {
        switch (option) {
        case 'c':
            options->config = optarg;
            break;
        case 's':
            options->sets[options->set_count++] = optarg;
            break;
        case OPT_CHECK:
            options->check = true;
            break;
        case OPT_PIDFILE:
            options->pidfile = optarg;
            break;
        case OPT_VERSION:
            printf("evpt %s\n", EVPT_VERSION);
            exit(EXIT_OK);
        case 'h':
            fputs(usage, stdout);
            exit(EXIT_OK);
        default:
            fputs("evpt: see evpt --help\n", stderr);
            return EXIT_USAGE;
        }
    }
    if (optind != argc - 1) {
        fprintf(stderr, "evpt: expected one NODENAME, got %d; see evpt --help\n", argc - optind);
        return EXIT_USAGE;
    }
    options->node = argv[optind];
    if (!evpt_node_name_is_valid(options->node)) {
        fprintf(stderr,
                "evpt: NODENAME: expected letters, digits and _, no digit first, got \"%s\"\n",
                options->node);
        return EXIT_USAGE;
    }
    return EXIT_OK;
}

/* What errors name that a value of the configuration leads to. */
static const char *source(const struct program *program)
{
    return program->config.file ? program->config.file : "built-in defaults";
}

static void print_problem(const char *line, void *user)
{
    fprintf(stderr, "evpt: %s\n", line);
}

static int check_tls(const struct program *program)
{
    char text[EVPT_TLS_TEXT_SIZE];
    int error = evpt_node_check_tls(&program->config, program->options.node, text);
    if (error)
        fprintf(stderr, "evpt: %s: tls: %s\n", source(program), text);
    return error;
}

/* Configuration, certificates and node list; every problem of all is printed. */
static int load_all(struct program *program, struct evpt_addr *ret_addr)
{
    const struct options *options = &program->options;
    const char *file = options->config;
    if (!file && evpt_sys_file_exists("evpt.lua"))
        file = "evpt.lua";
    int error = evpt_config_load(&program->config, file, options->sets, options->set_count,
                                 options->node, print_problem, NULL);
    struct evpt_node_list list = {0};
    if (program->config.clustername && /* known also where other keys are wrong */
        evpt_node_list_load(&list, program->config.clustername, NULL, 0, options->node,
                            print_problem, NULL) != 0)
        return EXIT_FAILED;
    if (!error)
        error = check_tls(program);
    if (error) {
        evpt_node_list_fini(&list);
        return EXIT_FAILED;
    }
    *ret_addr = evpt_node_list_find(&list, options->node)->addr;
    evpt_node_list_fini(&list);
    return EXIT_OK;
}

/* ---- to and from the launcher ---- */

static void tell_launcher(struct program *program, enum evpt_message_kind kind, const char *method,
                          const char *argument)
{
    static const char service[] = "launcher";
    struct evpt_message *message =
        evpt_request_new(kind, service, sizeof(service) - 1, method, strlen(method), 64);
    if (!message)
        return;
    struct evpt_writer writer;
    evpt_writer_init(&writer, message->data + message->size, message->capacity - message->size);
    evpt_write_array(&writer, argument ? 1 : 0);
    if (argument)
        evpt_write_str(&writer, argument, strlen(argument));
    message->size = (uint32_t)(writer.at - message->data);
    message->target = program->launcher;
    message->session = SESSION_START;
    if (evpt_request_finish(&message, program->node.main_handle, EVPT_FOREVER) != 0 ||
        evpt_post(&program->node.scheduler, NULL, message) != 0)
        evpt_message_free(message);
}

static void end(struct program *program, int status)
{
    program->phase = ENDED;
    program->status = status;
}

static void on_stop_timeout(struct evpt_timer *timer, void *user)
{
    struct program *program = user;
    evpt_logf(&program->node.log, EVPT_LOG_ERROR, "main",
              "not stopped in order within stop_timeout_ms (%u): ending now",
              program->config.stop_timeout_ms);
    program->at_once = true;
    end(program, EXIT_FAILED);
}

static void begin_stop(struct program *program, const char *why)
{
    if (program->phase >= STOPPING)
        return;
    program->phase = STOPPING;
    program->monitor.phase = EVPT_MONITOR_DRAINING;
    evpt_logf(&program->node.log, EVPT_LOG_INFO, "main", "%s: draining", why);
    service_manager_stopping(&program->manager);
    uint64_t timeout_ns = program->config.stop_timeout_ms * EVPT_NS_PER_MS;
    program->stop_by_ns = evpt_loop_update_now(program->node.main.loop) + timeout_ns;
    evpt_loop_timer(program->node.main.loop, &program->stop_timer, timeout_ns, on_stop_timeout,
                    program);
    tell_launcher(program, EVPT_MESSAGE_SEND, "stop", NULL);
}

/* Every service is ready and the port about to open: the admin socket and the pidfile first.
 * Answers the launcher's call. */
static void on_open(struct program *program, const struct evpt_message *request)
{
    struct evpt_node *node = &program->node;
    char text[512] = "", pid[32];
    int error = 0;
    if (program->config.admin) {
        error = evpt_node_open_admin(node, program->console);
        if (error)
            snprintf(text, sizeof(text), "%s: admin: cannot listen on %s: %s", source(program),
                     program->config.admin, evpt_strerror(error));
        program->admin_open = !error;
    }
    if (!error && program->options.pidfile) {
        int size = snprintf(pid, sizeof(pid), "%d\n", (int)getpid());
        error = evpt_sys_file_replace(program->options.pidfile, pid, (size_t)size);
        if (error)
            snprintf(text, sizeof(text), "--pidfile: cannot write %s: %s", program->options.pidfile,
                     evpt_strerror(error));
        program->pidfile_written = !error;
    }
    struct evpt_message *reply =
        error ? evpt_reply_error(EVPT_CODE_FAILED, text, strlen(text)) : evpt_reply_new(1);
    if (!reply) {
        fprintf(stderr, "evpt: out of memory\n");
        end(program, EXIT_FAILED);
        return;
    }
    if (!error) {
        reply->data[reply->size++] = 0x90; /* no results */
        evpt_reply_finish(reply);
    }
    evpt_post_reply(&node->scheduler, NULL, request->source, request->session, reply);
}

static void on_started(struct program *program)
{
    if (program->phase == STARTING) {
        program->phase = RUNNING;
        program->monitor.phase = EVPT_MONITOR_READY;
        service_manager_ready(&program->manager, &program->prober);
    }
    evpt_logf(&program->node.log, EVPT_LOG_INFO, "main", "started in %u ms",
              (unsigned)((evpt_sys_now_ns() - program->node.started_ns) / EVPT_NS_PER_MS));
}

/* The launcher's __main__ has failed: the text of the reply says why. */
static void on_start_failed(struct program *program, const struct evpt_message *reply)
{
    struct evpt_reader reader;
    uint32_t count, size = 0;
    const char *text = "";
    evpt_reader_init(&reader, reply->data + reply->args_at, reply->args_size);
    if (evpt_read_array(&reader, &count) == 0 && count)
        (void)evpt_read_str(&reader, &text, &size);
    /* what the launcher's own stack looked like does not help anybody */
    const char *own =
        memmem(text, size, "\nstack traceback:\n\t[C]: in function 'error'\n\tevpt:", 50);
    if (own)
        size = (uint32_t)(own - text);
    fprintf(stderr, "evpt: %.*s\n", (int)size, text);
    service_manager_start_failed(&program->manager, text, size);
    if (program->config.log.file)
        evpt_logf(&program->node.log, EVPT_LOG_ERROR, "main", "%.*s", (int)size, text);
    program->start_failed = true;
    end(program, EXIT_FAILED);
}

static bool is_method(const struct evpt_message *message, const char *name)
{
    return message->method_size == strlen(name) &&
           memcmp(message->data + message->method_at, name, message->method_size) == 0;
}

static void on_main(struct evpt_node *node, struct evpt_message *message, void *user)
{
    struct program *program = user;
    if (message->target == program->prober.handle) { /* 0 where nobody asks */
        evpt_prober_answer(&program->prober, message);
        return;
    }
    if (message->kind == EVPT_MESSAGE_REPLY) {
        if (message->session == SESSION_RELOAD)
            service_manager_reloaded(&program->manager);
        else if (message->code != EVPT_CODE_OK && program->phase == STARTING)
            on_start_failed(program, message);
        return;
    }
    if (is_method(message, "open"))
        on_open(program, message);
    else if (is_method(message, "started"))
        on_started(program);
    else if (is_method(message, "stopped"))
        end(program, EXIT_OK);
    else if (is_method(message, "stop"))
        begin_stop(program, "console: stop");
}

/* ---- signals ---- */

static void reload(struct program *program)
{
    struct evpt_node *node = &program->node;
    static const char service[] = "clusterclient", method[] = "reload_logged";
    struct evpt_message *message = evpt_request_new(EVPT_MESSAGE_CALL, service, sizeof(service) - 1,
                                                    method, sizeof(method) - 1, 16);
    if (!message)
        return;
    message->data[message->size++] = 0x90; /* no arguments */
    message->session = SESSION_RELOAD;
    message->target = evpt_registry_query(&node->scheduler.registry, service, sizeof(service) - 1);
    if (evpt_request_finish(&message, node->main_handle, EVPT_FOREVER) != 0 ||
        evpt_post(&node->scheduler, NULL, message) != 0)
        evpt_message_free(message);
    else
        service_manager_reloading(&program->manager);
}

static void on_signal(struct program *program, int signal)
{
    if (signal == SIGUSR1 || signal == SIGHUP)
        evpt_log_reopen(&program->node.log);
    if (signal == SIGHUP)
        reload(program);
    if (signal != SIGTERM && signal != SIGINT)
        return;
    if (program->phase < STOPPING) {
        begin_stop(program, signal == SIGTERM ? "TERM" : "INT");
    } else {
        program->at_once = true;
        end(program, EXIT_FAILED);
    }
}

static void on_signals(struct evpt_watch *watch, uint32_t events, void *user)
{
    struct program *program = user;
    int signal;
    while ((signal = evpt_sys_signalfd_read(program->signal_fd)) > 0)
        on_signal(program, signal);
}

/* ---- start and end ---- */

static uint32_t spawn_builtin(struct program *program, const char *name)
{
    struct evpt_node *node = &program->node;
    uint32_t handle = evpt_vm_spawn(node, NULL, name, name, true);
    if (handle && evpt_registry_name(&node->scheduler.registry, name, strlen(name), handle) == 0)
        evpt_node_hide(node, handle);
    return handle;
}

/* What watches the node or asks how it is: from the first moment on, so that its start is seen. */
static int start_watch(struct program *program)
{
    const struct evpt_addr *addr = &program->config.metrics;
    char text[EVPT_ADDR_TEXT_SIZE];
    service_manager_init(&program->manager, &program->node);
    if (!addr->size && !service_manager_wants_watchdog(&program->manager))
        return EXIT_OK;
    int error = evpt_prober_init(&program->prober, &program->node);
    if (error) {
        fprintf(stderr, "evpt: cannot start: %s\n", evpt_strerror(error));
        return EXIT_FAILED;
    }
    if (addr->size)
        error = evpt_monitor_start(&program->monitor, &program->node, &program->prober);
    if (error)
        fprintf(stderr, "evpt: %s: metrics: cannot listen on %s: %s\n", source(program),
                evpt_addr_format(addr, text, sizeof(text)), evpt_strerror(error));
    return error ? EXIT_FAILED : EXIT_OK;
}

static int start(struct program *program, const struct evpt_addr *addr)
{
    static const int signals[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1, 0};
    struct evpt_node *node = &program->node;
    int error =
        evpt_node_init(node, program->options.node, addr, &program->config, on_main, program);
    if (error) {
        if (program->config.log.file && node->log.fd < 0)
            fprintf(stderr, "evpt: %s: log.file: cannot open %s: %s\n", source(program),
                    program->config.log.file, evpt_strerror(error));
        else
            fprintf(stderr, "evpt: cannot start: %s\n", evpt_strerror(error));
        return EXIT_FAILED;
    }
    program->launcher = spawn_builtin(program, "launcher");
    program->console = spawn_builtin(program, "console");
    if (!program->launcher || !program->console || !spawn_builtin(program, "clusterclient") ||
        !spawn_builtin(program, "clusterserver")) {
        fputs("evpt: cannot start: out of memory\n", stderr);
        return EXIT_FAILED;
    }
    if (start_watch(program) != EXIT_OK)
        return EXIT_FAILED;
    program->signal_fd = evpt_sys_signalfd(signals);
    error = program->signal_fd < 0
                ? program->signal_fd
                : evpt_watch_start(node->main.loop, &program->signals, program->signal_fd,
                                   EVPT_READ, on_signals, program);
    if (!error)
        error = evpt_node_start(node);
    if (error) {
        fprintf(stderr, "evpt: cannot start: %s\n", evpt_strerror(error));
        return EXIT_FAILED;
    }
    tell_launcher(program, EVPT_MESSAGE_CALL, ".start", "launcher");
    return EXIT_OK;
}

/* Waits for the threads; a signal meanwhile, or the deadline, ends that. */
static bool join(struct program *program)
{
    uint64_t deadline_ns = program->stop_by_ns; /* of the whole stop; a failed start has its own */
    if (!deadline_ns)
        deadline_ns = evpt_sys_now_ns() + program->config.stop_timeout_ms * EVPT_NS_PER_MS;
    evpt_node_stop(&program->node);
    while (!program->at_once && evpt_sys_now_ns() < deadline_ns) {
        uint64_t until_ns = evpt_sys_now_ns() + 50 * EVPT_NS_PER_MS; /* then look for signals */
        if (evpt_node_join_until(&program->node, until_ns))
            return true;
        on_signals(&program->signals, EVPT_READ, program);
    }
    return evpt_node_join_until(&program->node, evpt_sys_now_ns() + 100 * EVPT_NS_PER_MS);
}

static void remove_files(struct program *program)
{
    if (program->pidfile_written)
        (void)evpt_sys_file_remove(program->options.pidfile);
    if (program->admin_open)
        (void)evpt_sys_file_remove(program->config.admin);
}

static int run(struct program *program, const struct evpt_addr *addr)
{
    int status = start(program, addr);
    if (status != EXIT_OK) {
        /* threads that did start end with the process; nothing else has been made yet */
        fflush(NULL);
        _exit(status);
    }
    while (program->phase != ENDED)
        evpt_loop_turn(program->node.main.loop, EVPT_FOREVER);
    bool joined = join(program);
    /* what the console has still to say to whoever asked for the stop */
    for (int i = 0; i < 2; i++)
        evpt_loop_turn(program->node.main.loop, 0);
    status = joined ? program->status : EXIT_FAILED;
    remove_files(program);
    if (joined && !program->start_failed) /* else there was nothing yet, and the reason is told */
        evpt_logf(&program->node.log, EVPT_LOG_INFO, "main", "stopped");
    /* A handler does not return, or nobody reads the log: nothing that these threads may touch can
     * be freed. */
    if (!evpt_log_stop(&program->node.log) || !joined)
        _exit(status);
    evpt_monitor_stop(&program->monitor);
    evpt_watch_stop(&program->signals);
    evpt_sys_close(program->signal_fd);
    evpt_node_fini(&program->node);
    return status;
}

static void raise_fd_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit); /* the old limit then stays */
    }
}

/* Whoever reloads or rotates logs must not kill a node that has just been started: these two wait
 * until it can take them. */
static void hold_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGUSR1);
    (void)sigprocmask(SIG_BLOCK, &set, NULL); /* there is one thread, and the set is valid */
}

int main(int argc, char **argv)
{
    static struct program program; /* large; not a global anybody else can see */
    struct evpt_addr addr;
    hold_signals();
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a file at its limit is a full disk for the log, not the end */
    raise_fd_limit();
    int status = parse_options(argc, argv, &program.options);
    if (status == EXIT_OK)
        status = load_all(&program, &addr);
    if (status == EXIT_OK && program.options.check)
        printf("evpt: %s: configuration and node list are valid\n", program.options.node);
    else if (status == EXIT_OK)
        status = run(&program, &addr);
    evpt_config_fini(&program.config);
    free(program.options.sets);
    return status;
}
