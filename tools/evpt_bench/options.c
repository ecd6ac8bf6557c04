#include "tools/evpt_bench/options.h"

#include "reactor/sys.h"
#include "services/request.h"
#include "tools/evpt_bench/parse.h"

#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define IN_FLIGHT_MAX 1000000 /* pending_max of a node, too, unless it is configured otherwise */
#define IN_FLIGHT_CLOSED 64
#define IN_FLIGHT_OPEN 10000
#define CONNECTIONS_MAX 10000
#define SERVICES_MAX 10000 /* of 30 KiB each */
#define PEERS_MAX 10000    /* a connection each */
#define SIZE_MAX_BYTES (UINT64_C(1) << 30)
#define MEMORY_MAX (UINT64_C(4) << 30) /* of arguments that may be in flight together */
#define RATE_MAX 1e7
#define TIMEOUT_MAX_NS (3600 * EVPT_NS_PER_S)

static const char usage[] =
    "usage: evpt-bench [options] call|send TARGET SERVICE METHOD\n"
    "       evpt-bench [options] --local[=one] [call|send]\n"
    "\n"
    "Measures calls (or sends) of METHOD with one string as argument. TARGET is ip:port, or a\n"
    "node's name with -f. --local starts two nodes on loopback and measures from a Lua service of\n"
    "one to a Lua service of the other; --local=one inside one node.\n"
    "\n"
    "load\n"
    "  -c, --in-flight N       closed loop: keep N calls in flight (default 64);\n"
    "                          open loop: at most N (default 10k), else a slot is missed\n"
    "      --connections N     spread them over N connections (default 1)\n"
    "  -r, --rate N            open loop: N calls per second on a fixed schedule; latency counts\n"
    "                          from the intended start\n"
    "  -d, --duration TIME     how long (default 10s, without -n)\n"
    "  -n, --count N           how many\n"
    "  -w, --warmup TIME       load before that, not measured (default 1s; 0 with -n)\n"
    "  -s, --size BYTES        of the argument: 64 (default), or a range: 16..4Ki\n"
    "      --timeout TIME      deadline of each call and of connecting (default 5s)\n"
    "  -f, --nodes FILE        node list (clustername.lua) that TARGET is looked up in\n"
    "      --tls DIR           TLS with the certificates in DIR: evpt_bench's, and for --local those\n"
    "                          of bench_a and bench_b; evpt-certs makes them\n"
    "      --pin CPULIST       bind everything that is started here to these processors: 0, 0-3\n"
    "\n"
    "load of --local\n"
    "      --services N        the calls go to each of N services in turn (default 1)\n"
    "      --peers N           no second node but N peers inside evpt-bench, and the calls are\n"
    "                          spread over them: what many peers cost a node\n"
    "      --beside BYTES      meanwhile another service of the calling node keeps 4 calls of "
    "that\n"
    "                          size in flight, to another one of the other node\n"
    "      --set KEY=VALUE     configuration of the nodes, as evpt --set\n"
    "\n"
    "report\n"
    "      --json FILE         everything; - is stdout\n"
    "      --csv FILE          one line, appended; with a heading where the file is new\n"
    "      --hgrm FILE         percentiles for the HdrHistogram plotter, in milliseconds\n"
    "      --compare OLD.json  show what has changed since\n"
    "      --max-p99 TIME      exit status 3 unless 99 % of the calls are answered in that time\n"
    "      --version\n"
    "  -h, --help\n"
    "\n"
    "Suffixes: N k M G; BYTES k M G (1000) Ki Mi Gi (1024); TIME ns us ms s (default) m h.\n"
    "Exit status: 0 done, also after Ctrl-C; 1 failed, or no call was answered; 2 usage;\n"
    "3 slower than --max-p99.\n";

enum {
    OPT_CONNECTIONS = 256,
    OPT_TIMEOUT,
    OPT_LOCAL,
    OPT_SERVICES,
    OPT_PEERS,
    OPT_BESIDE,
    OPT_SET,
    OPT_TLS,
    OPT_PIN,
    OPT_JSON,
    OPT_CSV,
    OPT_HGRM,
    OPT_COMPARE,
    OPT_MAX_P99,
    OPT_VERSION,
};

static const struct option long_options[] = {
    {"in-flight", required_argument, NULL, 'c'},
    {"connections", required_argument, NULL, OPT_CONNECTIONS},
    {"rate", required_argument, NULL, 'r'},
    {"duration", required_argument, NULL, 'd'},
    {"count", required_argument, NULL, 'n'},
    {"warmup", required_argument, NULL, 'w'},
    {"size", required_argument, NULL, 's'},
    {"timeout", required_argument, NULL, OPT_TIMEOUT},
    {"nodes", required_argument, NULL, 'f'},
    {"local", optional_argument, NULL, OPT_LOCAL},
    {"services", required_argument, NULL, OPT_SERVICES},
    {"peers", required_argument, NULL, OPT_PEERS},
    {"beside", required_argument, NULL, OPT_BESIDE},
    {"set", required_argument, NULL, OPT_SET},
    {"tls", required_argument, NULL, OPT_TLS},
    {"pin", required_argument, NULL, OPT_PIN},
    {"json", required_argument, NULL, OPT_JSON},
    {"csv", required_argument, NULL, OPT_CSV},
    {"hgrm", required_argument, NULL, OPT_HGRM},
    {"compare", required_argument, NULL, OPT_COMPARE},
    {"max-p99", required_argument, NULL, OPT_MAX_P99},
    {"version", no_argument, NULL, OPT_VERSION},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

__attribute__((format(printf, 1, 2))) static int usage_error(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("evpt-bench: ", stderr);
    vfprintf(stderr, format, args);
    fputs("; see evpt-bench --help\n", stderr);
    va_end(args);
    return BENCH_EXIT_USAGE;
}

/* `option`, its argument, and whether that was right; -1 or the exit status. */
static int expect(bool right, const char *option, const char *expected, const char *got)
{
    return right ? -1 : usage_error("%s: expected %s, got \"%s\"", option, expected, got);
}

static bool parse_count_between(const char *text, uint64_t min, uint64_t max, uint64_t *ret_count)
{
    uint64_t count;
    if (!bench_parse_count(text, &count) || count < min || count > max)
        return false;
    *ret_count = count;
    return true;
}

static bool parse_time_between(const char *text, uint64_t min_ns, uint64_t max_ns, uint64_t *ret_ns)
{
    uint64_t ns;
    if (!bench_parse_time(text, &ns) || ns < min_ns || ns > max_ns)
        return false;
    *ret_ns = ns;
    return true;
}

static int set_local(struct bench_options *options, const char *text)
{
    bool one = text && strcmp(text, "one") == 0;
    options->where = one ? BENCH_LOCAL_ONE : BENCH_LOCAL_TWO;
    return expect(!text || one || strcmp(text, "two") == 0, "--local", "one or two",
                  text ? text : "");
}

/* One option with a value; -1 or the exit status. */
static int set_option(struct bench_options *options, int option, const char *text)
{
    switch (option) {
    case 'c':
        return expect(parse_count_between(text, 1, IN_FLIGHT_MAX, &options->in_flight), "-c",
                      "1 to 1M calls", text);
    case OPT_CONNECTIONS:
        return expect(parse_count_between(text, 1, CONNECTIONS_MAX, &options->connections),
                      "--connections", "1 to 10k connections", text);
    case OPT_SERVICES:
        return expect(parse_count_between(text, 1, SERVICES_MAX, &options->services), "--services",
                      "1 to 10k services", text);
    case OPT_PEERS:
        return expect(parse_count_between(text, 1, PEERS_MAX, &options->peers), "--peers",
                      "1 to 10k peers", text);
    case 'r':
        return expect(bench_parse_rate(text, &options->rate) && options->rate <= RATE_MAX, "-r",
                      "calls per second, more than 0, at most 10M", text);
    case 'd':
        return expect(parse_time_between(text, 1, UINT64_MAX, &options->duration_ns), "-d",
                      "a time like 10s", text);
    case 'n':
        return expect(parse_count_between(text, 1, UINT64_MAX, &options->count), "-n",
                      "a number of calls like 10k", text);
    case 'w':
        return expect(parse_time_between(text, 0, UINT64_MAX, &options->warmup_ns), "-w",
                      "a time like 1s", text);
    case 's':
        return expect(bench_parse_sizes(text, &options->size_min, &options->size_max) &&
                          options->size_max <= SIZE_MAX_BYTES,
                      "-s", "bytes like 64, 4Ki or 16..4Ki, at most 1Gi", text);
    case OPT_BESIDE:
        return expect(bench_parse_size(text, &options->beside) && options->beside > 0 &&
                          options->beside <= SIZE_MAX_BYTES,
                      "--beside", "bytes like 1MiB, at most 1Gi", text);
    case OPT_TIMEOUT:
        return expect(
            parse_time_between(text, EVPT_NS_PER_MS, TIMEOUT_MAX_NS, &options->timeout_ns),
            "--timeout", "a time from 1ms to 1h", text);
    case OPT_PIN:
        options->pin = text;
        return expect(bench_parse_cpus(text, &options->cpus), "--pin", "processors like 0 or 0,2-3",
                      text);
    case OPT_MAX_P99:
        return expect(parse_time_between(text, 1, UINT64_MAX, &options->max_p99_ns), "--max-p99",
                      "a time like 2ms", text);
    case OPT_SET:
        options->sets[options->set_count++] = text;
        return expect(strchr(text, '=') != NULL, "--set", "KEY=VALUE", text);
    case OPT_LOCAL:
        return set_local(options, text);
    }
    return -1;
}

/* Options whose value is taken as it is, and those that end the program. */
static int set_text(struct bench_options *options, int option, const char *text)
{
    switch (option) {
    case 'f':
        options->nodes = text;
        return -1;
    case OPT_TLS:
        options->tls = text;
        return -1;
    case OPT_JSON:
        options->json = text;
        return -1;
    case OPT_CSV:
        options->csv = text;
        return -1;
    case OPT_HGRM:
        options->hgrm = text;
        return -1;
    case OPT_COMPARE:
        options->compare = text;
        return -1;
    case OPT_VERSION:
        printf("evpt-bench %s\n", EVPT_VERSION);
        return BENCH_EXIT_OK;
    case 'h':
        fputs(usage, stdout);
        return BENCH_EXIT_OK;
    case '?': /* getopt has said what it does not know */
        fputs("evpt-bench: see evpt-bench --help\n", stderr);
        return BENCH_EXIT_USAGE;
    }
    return set_option(options, option, text);
}

static int set_arguments(struct bench_options *options, int count, char **arguments)
{
    bool local = options->where != BENCH_TARGET;
    int wanted = local ? 1 : 4;
    if (local && count == 0)
        return -1;
    if (count != wanted)
        return usage_error(local ? "expected call or send behind --local, got %d arguments"
                                 : "expected call|send TARGET SERVICE METHOD, got %d arguments",
                           count);
    if (strcmp(arguments[0], "send") == 0)
        options->what = BENCH_SEND;
    else if (strcmp(arguments[0], "call") != 0)
        return usage_error("expected call or send, got \"%s\"", arguments[0]);
    if (local)
        return -1;
    options->target = arguments[1];
    options->service = arguments[2];
    options->method = arguments[3];
    if (strlen(options->service) > EVPT_NAME_MAX || strlen(options->method) > EVPT_NAME_MAX)
        return usage_error("SERVICE, METHOD: expected at most %d bytes each", EVPT_NAME_MAX);
    struct evpt_addr addr;
    if (!options->nodes && evpt_addr_parse(&addr, options->target) != 0)
        return usage_error("TARGET: expected ip:port, or a node's name with -f, got \"%s\"",
                           options->target);
    return -1;
}

/* What is for --local, or not for it, and what excludes each other there. -1 or the exit status. */
static int check_local(const struct bench_options *options)
{
    bool local = options->where != BENCH_TARGET;
    if (local && options->connections)
        return usage_error("--connections: nodes have one connection to each other");
    if (local && options->nodes)
        return usage_error("-f: --local makes its own node list");
    if (!local && options->set_count)
        return usage_error("--set: is for the nodes that --local starts");
    if (!local && (options->services > 1 || options->peers || options->beside))
        return usage_error("--services, --peers, --beside: are for --local");
    if (options->where == BENCH_LOCAL_ONE && (options->peers || options->beside))
        return usage_error("--peers, --beside: are for --local between nodes");
    if (options->peers && (options->services > 1 || options->beside))
        return usage_error("--peers: they have no services and nothing beside");
    if (options->peers && options->tls)
        return usage_error("--peers: they have no certificates for --tls");
    if (options->what == BENCH_SEND && (options->services > 1 || options->peers))
        return usage_error("--services, --peers: are for calls");
    return -1;
}

/* What was not said, and what does not go together. */
static int complete(struct bench_options *options)
{
    int status = check_local(options);
    if (status >= 0)
        return status;
    if (!options->in_flight)
        options->in_flight = options->rate > 0 ? IN_FLIGHT_OPEN : IN_FLIGHT_CLOSED;
    if (!options->duration_ns)
        options->duration_ns = options->count == UINT64_MAX ? 10 * EVPT_NS_PER_S : UINT64_MAX;
    if (options->warmup_ns == UINT64_MAX)
        options->warmup_ns = options->count == UINT64_MAX ? EVPT_NS_PER_S : 0;
    if (!options->connections)
        options->connections = 1;
    if (options->connections > options->in_flight)
        return usage_error("--connections: expected at most as many as calls in flight (-c)");
    if (options->peers > options->in_flight)
        return usage_error("--peers: expected at most as many as calls in flight (-c)");
    /* In an open loop as many are in flight as the target is slow; the limit is not the plan. */
    if (options->rate == 0 && options->in_flight * options->size_max > MEMORY_MAX)
        return usage_error("-c, -s: expected at most 4 GiB of arguments in flight");
    return -1;
}

int bench_options_parse(struct bench_options *ret_options, int argc, char **argv)
{
    struct bench_options options = {
        .count = UINT64_MAX,
        .warmup_ns = UINT64_MAX,
        .size_min = 64,
        .size_max = 64,
        .services = 1,
        .timeout_ns = 5 * EVPT_NS_PER_S,
        .sets = evpt_sys_zalloc((size_t)argc * sizeof(const char *)),
    };
    int option, status = options.sets ? -1 : BENCH_EXIT_FAILED;
    if (!options.sets)
        fputs("evpt-bench: out of memory\n", stderr);
    while (status < 0 &&
           (option = getopt_long(argc, argv, "c:r:d:n:w:s:f:h", long_options, NULL)) != -1)
        status = set_text(&options, option, optarg);
    if (status < 0)
        status = set_arguments(&options, argc - optind, argv + optind);
    if (status < 0)
        status = complete(&options);
    *ret_options = options;
    return status;
}

void bench_options_fini(struct bench_options *options)
{
    evpt_sys_free(options->sets);
    *options = (struct bench_options){0};
}
