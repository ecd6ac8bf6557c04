#include "tools/evpt_bench/json.h"

#include <ctype.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define DEPTH_MAX 16
#define PATH_SIZE 512

/* ---- writing ---- */

void bench_json_string(FILE *out, const char *text)
{
    fputc('"', out);
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\')
            fprintf(out, "\\%c", c);
        else if (c < 0x20)
            fprintf(out, "\\u%04x", c);
        else
            fputc(c, out);
    }
    fputc('"', out);
}

void bench_json_number(FILE *out, double number)
{
    if (!isfinite(number))
        fputs("null", out);
    else if (number == floor(number) && fabs(number) < 1e15)
        fprintf(out, "%.0f", number);
    else
        fprintf(out, "%.9g", number);
}

/* ---- reading ---- */

struct reading {
    char *at;
    bench_json_fn fn;
    void *user;
    char path[PATH_SIZE];
};

static void skip_space(struct reading *reading)
{
    while (isspace((unsigned char)*reading->at))
        reading->at++;
}

static bool take(struct reading *reading, char c)
{
    skip_space(reading);
    if (*reading->at != c)
        return false;
    reading->at++;
    return true;
}

static int hex_value(const char *digits)
{
    char *end, copy[5] = {0};
    strncpy(copy, digits, 4);
    long value = strtol(copy, &end, 16);
    return end == copy + 4 && isxdigit((unsigned char)*copy) ? (int)value : -1;
}

static char *write_utf8(char *to, int c)
{
    if (c < 0x80) {
        *to++ = (char)c;
    } else if (c < 0x800) {
        *to++ = (char)(0xc0 | c >> 6);
        *to++ = (char)(0x80 | (c & 0x3f));
    } else { /* halves of a surrogate pair stay as they are: nothing that we write has any */
        *to++ = (char)(0xe0 | c >> 12);
        *to++ = (char)(0x80 | (c >> 6 & 0x3f));
        *to++ = (char)(0x80 | (c & 0x3f));
    }
    return to;
}

/* Behind the backslash; NULL where it is none of JSON's. */
static char *read_escape(struct reading *reading, char *to)
{
    static const char from[] = "\"\\/bfnrt", means[] = "\"\\/\b\f\n\r\t";
    char c = *reading->at++;
    const char *known = c ? strchr(from, c) : NULL;
    if (known) {
        *to = means[known - from];
        return to + 1;
    }
    int code = c == 'u' ? hex_value(reading->at) : -1;
    if (code < 0)
        return NULL;
    reading->at += 4;
    return write_utf8(to, code);
}

/* A string, unescaped in place (that never makes it longer); NULL where it is none. */
static char *read_string(struct reading *reading)
{
    if (!take(reading, '"'))
        return NULL;
    char *text = reading->at, *to = text;
    while (*reading->at && *reading->at != '"') {
        if (*reading->at == '\\') {
            reading->at++;
            to = read_escape(reading, to);
            if (!to)
                return NULL;
        } else {
            *to++ = *reading->at++;
        }
    }
    if (!*reading->at)
        return NULL;
    reading->at++;
    *to = 0;
    return text;
}

static bool read_value(struct reading *reading, size_t path_size, int depth);

/* The value of one key or position; false also where the path gets too long. */
static bool read_member(struct reading *reading, size_t path_size, const char *key, int depth)
{
    int added = snprintf(reading->path + path_size, PATH_SIZE - path_size, "%s%s",
                         path_size ? "." : "", key);
    if (added < 0 || path_size + (size_t)added >= PATH_SIZE)
        return false;
    bool good = read_value(reading, path_size + (size_t)added, depth + 1);
    reading->path[path_size] = 0;
    return good;
}

static bool read_object(struct reading *reading, size_t path_size, int depth)
{
    if (take(reading, '}'))
        return true;
    do {
        char *key = read_string(reading);
        if (!key || !take(reading, ':') || !read_member(reading, path_size, key, depth))
            return false;
    } while (take(reading, ','));
    return take(reading, '}');
}

static bool read_array(struct reading *reading, size_t path_size, int depth)
{
    char key[24];
    if (take(reading, ']'))
        return true;
    unsigned position = 0;
    do {
        snprintf(key, sizeof(key), "%u", position++);
        if (!read_member(reading, path_size, key, depth))
            return false;
    } while (take(reading, ','));
    return take(reading, ']');
}

static bool read_word(struct reading *reading)
{
    static const char *const words[] = {"true", "false", "null"};
    for (unsigned i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        size_t size = strlen(words[i]);
        if (strncmp(reading->at, words[i], size) != 0)
            continue;
        reading->at += size;
        reading->fn(reading->path, words[i], 0, reading->user);
        return true;
    }
    return false;
}

static bool read_number(struct reading *reading)
{
    char *end;
    if (*reading->at != '-' && !isdigit((unsigned char)*reading->at))
        return false;
    double number = strtod(reading->at, &end);
    if (end == reading->at)
        return false;
    reading->at = end;
    reading->fn(reading->path, NULL, number, reading->user);
    return true;
}

static bool read_value(struct reading *reading, size_t path_size, int depth)
{
    if (depth > DEPTH_MAX)
        return false;
    if (take(reading, '{'))
        return read_object(reading, path_size, depth);
    if (take(reading, '['))
        return read_array(reading, path_size, depth);
    if (*reading->at != '"')
        return read_word(reading) || read_number(reading);
    char *text = read_string(reading);
    if (text)
        reading->fn(reading->path, text, 0, reading->user);
    return text != NULL;
}

int bench_json_read(char *text, bench_json_fn fn, void *user)
{
    struct reading reading = {.at = text, .fn = fn, .user = user};
    if (!read_value(&reading, 0, 0))
        return -1;
    skip_space(&reading);
    return *reading.at ? -1 : 0;
}
