#include "tools/evpt_bench/system.h"

#include "tools/evpt_bench/complain.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

void bench_complain(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("evpt-bench: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
}

/* ---- environment ---- */

static void read_cpu_model(char *model, size_t size)
{
    char line[256];
    snprintf(model, size, "unknown");
    FILE *file = fopen("/proc/cpuinfo", "re");
    while (file && fgets(line, sizeof(line), file)) {
        char *colon = strchr(line, ':');
        if (!colon || strncmp(line, "model name", 10) != 0)
            continue;
        line[strcspn(line, "\n")] = 0;
        snprintf(model, size, "%s", colon + 1 + strspn(colon + 1, " "));
        break;
    }
    if (file)
        fclose(file);
}

static bool is_plain(const char *text)
{
    for (const char *at = text; *at; at++) {
        if (!isalnum((unsigned char)*at) && !strchr("-_=./,:+@%[]", *at))
            return false;
    }
    return *text != 0;
}

/* One argument as a shell takes it: in single quotes where it needs to be. */
static void write_quoted(FILE *out, const char *text)
{
    if (is_plain(text)) {
        fputs(text, out);
        return;
    }
    fputc('\'', out);
    for (; *text; text++) {
        if (*text == '\'')
            fputs("'\\''", out);
        else
            fputc(*text, out);
    }
    fputc('\'', out);
}

char *bench_quote_command(int argc, char **argv)
{
    char *command = NULL;
    size_t size;
    FILE *out = open_memstream(&command, &size);
    if (!out)
        return NULL;
    for (int i = 0; i < argc; i++) {
        if (i > 0)
            fputc(' ', out);
        write_quoted(out, argv[i]);
    }
    return fclose(out) == 0 ? command : NULL;
}

void bench_environment_read(struct bench_environment *ret_environment, const char *command)
{
    struct bench_environment environment = {.cpu_count = evpt_sys_cpu_count(),
                                            .command = command ? command : ""};
    struct utsname name;
    if (uname(&name) == 0)
        snprintf(environment.kernel, sizeof(environment.kernel), "%s %s %s", name.sysname,
                 name.release, name.machine);
    read_cpu_model(environment.cpu, sizeof(environment.cpu));
    snprintf(environment.build, sizeof(environment.build), "%s, %s", BENCH_BUILD, BENCH_COMPILER);
    time_t now = time(NULL);
    struct tm utc;
    strftime(environment.date, sizeof(environment.date), "%Y-%m-%dT%H:%M:%SZ",
             gmtime_r(&now, &utc));
    *ret_environment = environment;
}

/* ---- processes ---- */

uint64_t bench_cpu_ns(pid_t pid)
{
    clockid_t clock;
    struct timespec time;
    if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &time) != 0)
        return 0;
    return (uint64_t)time.tv_sec * EVPT_NS_PER_S + (uint64_t)time.tv_nsec;
}

uint64_t bench_memory_max(pid_t pid)
{
    char path[64], line[256];
    unsigned long kib = 0;
    snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
    FILE *file = fopen(path, "re");
    while (file && !kib && fgets(line, sizeof(line), file))
        (void)sscanf(line, "VmHWM: %lu kB", &kib); /* another line leaves it at 0 */
    if (file)
        fclose(file);
    return (uint64_t)kib * 1024;
}

void bench_exact_timers(void)
{
    (void)prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0); /* where that is refused, the lag shows it */
}

void bench_default_timers(void)
{
    (void)prctl(PR_SET_TIMERSLACK, 0, 0, 0, 0);
}

/* The address as /proc/net/tcp and tcp6 write it: hexadecimal words in the machine's order. */
static void format_proc_address(const struct evpt_addr *addr, char text[33])
{
    uint32_t words[4];
    int count = addr->u.any.sa_family == AF_INET6 ? 4 : 1;
    if (count == 4)
        memcpy(words, &addr->u.v6.sin6_addr, sizeof(words));
    else
        memcpy(words, &addr->u.v4.sin_addr, sizeof(words[0]));
    for (int i = 0; i < count; i++)
        sprintf(text + (ptrdiff_t)i * 8, "%08" PRIX32, words[i]);
}

/* The inode of the socket that listens on the address, or on its port on all of them; 0: none. */
static unsigned long find_listener(const struct evpt_addr *addr, const char *path)
{
    enum { LISTEN = 0x0a };
    char wanted[33], line[512], local[33];
    unsigned long inode, found = 0;
    unsigned port, state;
    /* another machine's port says nothing about who has the same port here */
    bool any = evpt_addr_is_loopback(addr);
    format_proc_address(addr, wanted);
    FILE *file = fopen(path, "re");
    while (file && !found && fgets(line, sizeof(line), file)) {
        if (sscanf(line, " %*d: %32[0-9A-F]:%x %*[0-9A-F]:%*x %x %*s %*s %*s %*d %*d %lu", local,
                   &port, &state, &inode) == 4 &&
            state == LISTEN && port == evpt_addr_port(addr) &&
            (strcmp(local, wanted) == 0 || (any && strspn(local, "0") == strlen(local))))
            found = inode;
    }
    if (file)
        fclose(file);
    return found;
}

static bool has_socket(const char *pid, const char *wanted)
{
    char path[300], link[64];
    bool found = false;
    snprintf(path, sizeof(path), "/proc/%s/fd", pid);
    DIR *fds = opendir(path); /* NULL: not ours to see, or gone */
    struct dirent *fd;
    while (fds && !found && (fd = readdir(fds))) {
        ssize_t size = readlinkat(dirfd(fds), fd->d_name, link, sizeof(link) - 1);
        link[size > 0 ? size : 0] = 0;
        found = strcmp(link, wanted) == 0;
    }
    if (fds)
        closedir(fds);
    return found;
}

pid_t bench_owner_of(const struct evpt_addr *addr)
{
    char wanted[64];
    unsigned long inode = 0;
    if (addr->u.any.sa_family == AF_INET)
        inode = find_listener(addr, "/proc/net/tcp");
    if (!inode)
        inode = find_listener(addr, "/proc/net/tcp6");
    if (!inode)
        return 0;
    snprintf(wanted, sizeof(wanted), "socket:[%lu]", inode);
    pid_t found = 0;
    DIR *processes = opendir("/proc");
    struct dirent *entry;
    while (processes && !found && (entry = readdir(processes))) {
        if (isdigit((unsigned char)entry->d_name[0]) && has_socket(entry->d_name, wanted))
            found = (pid_t)strtol(entry->d_name, NULL, 10);
    }
    if (processes)
        closedir(processes);
    return found;
}
