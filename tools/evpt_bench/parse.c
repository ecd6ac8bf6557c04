#include "tools/evpt_bench/parse.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct suffix {
    const char *text;
    double factor;
};

static const struct suffix counts[] = {{"", 1},    {"k", 1e3}, {"K", 1e3},
                                       {"M", 1e6}, {"G", 1e9}, {NULL, 0}};
static const struct suffix sizes[] = {
    {"", 1},          {"B", 1},      {"k", 1e3},      {"K", 1e3},       {"kB", 1e3},
    {"KB", 1e3},      {"M", 1e6},    {"MB", 1e6},     {"G", 1e9},       {"GB", 1e9},
    {"Ki", 1024},     {"KiB", 1024}, {"Mi", 1 << 20}, {"MiB", 1 << 20}, {"Gi", 1 << 30},
    {"GiB", 1 << 30}, {NULL, 0},
};
static const struct suffix times[] = {
    {"", 1e9}, {"s", 1e9},  {"ms", 1e6},   {"us", 1e3},   {"\u00b5s", 1e3},
    {"ns", 1}, {"m", 60e9}, {"min", 60e9}, {"h", 3600e9}, {NULL, 0},
};

/* A decimal number, with or without a fraction or an exponent, and one of the suffixes. */
static bool parse_scaled(const char *text, const struct suffix *suffixes, double *ret_value)
{
    if (*text < '0' || *text > '9' || text[1] == 'x' || text[1] == 'X') /* no sign, inf, nan, hex */
        return false;
    char *rest;
    double value = strtod(text, &rest);
    for (const struct suffix *suffix = suffixes; suffix->text; suffix++) {
        if (strcmp(rest, suffix->text) != 0)
            continue;
        *ret_value = value * suffix->factor;
        return isfinite(*ret_value);
    }
    return false;
}

/* The same where the result must be a whole number that a double holds exactly. */
static bool parse_whole(const char *text, const struct suffix *suffixes, uint64_t *ret_value)
{
    double value;
    if (!parse_scaled(text, suffixes, &value) || value > 0x1p53)
        return false;
    double whole = nearbyint(value);
    if (fabs(value - whole) > 1e-9 * whole)
        return false; /* beyond rounding: 1.1k is whole, though 1.1 * 1000 is not quite */
    *ret_value = (uint64_t)whole;
    return true;
}

bool bench_parse_count(const char *text, uint64_t *ret_count)
{
    return parse_whole(text, counts, ret_count);
}

bool bench_parse_rate(const char *text, double *ret_rate)
{
    double rate;
    if (!parse_scaled(text, counts, &rate) || rate <= 0)
        return false;
    *ret_rate = rate;
    return true;
}

bool bench_parse_size(const char *text, uint64_t *ret_bytes)
{
    return parse_whole(text, sizes, ret_bytes);
}

bool bench_parse_sizes(const char *text, uint64_t *ret_min, uint64_t *ret_max)
{
    char first[32];
    uint64_t min, max;
    const char *dots = strstr(text, "..");
    const char *dash = dots ? NULL : strchr(text, '-');
    const char *end = dots ? dots : dash;
    if (!end) {
        if (!bench_parse_size(text, &min))
            return false;
        *ret_min = *ret_max = min;
        return true;
    }
    size_t size = (size_t)(end - text);
    if (size >= sizeof(first))
        return false;
    memcpy(first, text, size);
    first[size] = 0;
    if (!bench_parse_size(first, &min) || !bench_parse_size(end + (dots ? 2 : 1), &max) ||
        min > max)
        return false;
    *ret_min = min;
    *ret_max = max;
    return true;
}

bool bench_parse_time(const char *text, uint64_t *ret_ns)
{
    return parse_whole(text, times, ret_ns);
}

static bool parse_cpu(const char **text, unsigned *ret_cpu)
{
    if (**text < '0' || **text > '9')
        return false;
    char *rest;
    unsigned long cpu = strtoul(*text, &rest, 10);
    *text = rest;
    *ret_cpu = (unsigned)cpu;
    return cpu < CPU_SETSIZE;
}

bool bench_parse_cpus(const char *text, cpu_set_t *ret_cpus)
{
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    do {
        unsigned first, last;
        if (!parse_cpu(&text, &first))
            return false;
        last = first;
        if (*text == '-' && (text++, !parse_cpu(&text, &last)))
            return false;
        for (unsigned cpu = first; cpu <= last; cpu++)
            CPU_SET(cpu, &cpus);
        if (last < first)
            return false;
    } while (*text == ',' && text++);
    if (*text)
        return false;
    *ret_cpus = cpus;
    return true;
}
