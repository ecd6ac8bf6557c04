#include "services/log_line.h"

#include "reactor/sys.h"
#include "services/utf8.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#define SERVICE_MAX 128   /* bytes of a service's name that are shown */
#define FIELD_NAME_MAX 64 /* of a field's name, and of its value */
#define FIELD_VALUE_MAX 4096
#define ESCAPED_MAX 6     /* what a byte may become: \u001f */
#define FRAME_MAX 256     /* time, level, node's name, and what JSON has around them */
#define FIELD_FRAME_MAX 8 /* blank or comma, quotes, and what is between name and value */

const char *evpt_log_level_name(enum evpt_log_level level)
{
    static const char *const names[] = {"debug", "info", "warn", "error"};
    return names[level];
}

static size_t format_time(char *text, size_t size)
{
    int64_t wall_ns = evpt_sys_wall_ns();
    time_t seconds = (time_t)(wall_ns / (int64_t)EVPT_NS_PER_S);
    struct tm tm;
    gmtime_r(&seconds, &tm);
    size_t used = strftime(text, size, "%Y-%m-%dT%H:%M:%S", &tm);
    int ms = (int)(wall_ns / (int64_t)EVPT_NS_PER_MS % 1000);
    return used + (size_t)snprintf(text + used, size - used, ".%03dZ", ms);
}

/* ---- escaping ---- */

/* PLAIN: text as it is, but for control characters. QUOTED: between quotes in the text format, on
 * one line. JSON: a string that every reader takes: what is not UTF-8 becomes U+FFFD. */
enum style { PLAIN, QUOTED, JSON };

/* One byte that stands for itself or is escaped; returns how many were written (at most
 * ESCAPED_MAX). */
static size_t escape(char *out, unsigned char c, enum style style)
{
    if (style != PLAIN && (c == '"' || c == '\\'))
        return (size_t)sprintf(out, "\\%c", c);
    if (style != PLAIN && c == '\n')
        return (size_t)sprintf(out, "\\n");
    if (style != PLAIN && c == '\t')
        return (size_t)sprintf(out, "\\t");
    if ((c < 0x20 && c != '\n' && c != '\t') || c == 0x7f)
        return (size_t)sprintf(out, style == JSON ? "\\u%04x" : "\\x%02x", c);
    *out = (char)c;
    return 1;
}

static size_t put_escaped(char *out, const char *bytes, size_t size, enum style style)
{
    const unsigned char *at = (const unsigned char *)bytes;
    size_t used = 0;
    for (size_t i = 0, step; i < size; i += step) {
        step = style == JSON ? evpt_utf8_size(at + i, size - i) : 1;
        if (step == 1) {
            used += escape(out + used, at[i], style);
        } else if (step == 0) {
            used += (size_t)sprintf(out + used, "\\ufffd");
            step = 1;
        } else {
            memcpy(out + used, at + i, step);
            used += step;
        }
    }
    return used;
}

/* ---- fields ---- */

static size_t value_size(const struct evpt_log_field *field)
{
    return field->size < FIELD_VALUE_MAX ? field->size : FIELD_VALUE_MAX;
}

static size_t worst_of_fields(const struct evpt_log_field *fields, size_t count)
{
    size_t sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += FIELD_FRAME_MAX + (FIELD_NAME_MAX + value_size(&fields[i])) * ESCAPED_MAX;
    return sum;
}

/* May a value stand in the text format without quotes? It may not look like the end of its field.
 */
static bool is_plain(const char *value, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)value[i];
        if (c <= ' ' || c == '"' || c == '=' || c == '\\' || c == 0x7f)
            return false;
    }
    return size > 0;
}

/* A name that the line has already gets a `_` behind it. */
static bool is_taken(const char *name, size_t size)
{
    static const char *const names[] = {"time", "level", "node", "service", "message"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strlen(names[i]) == size && memcmp(names[i], name, size) == 0)
            return true;
    }
    return false;
}

static size_t put_field(char *out, const struct evpt_log_field *field, bool json)
{
    size_t used = 0, name_size = strnlen(field->name, FIELD_NAME_MAX - 1);
    bool taken = is_taken(field->name, name_size);
    bool quoted = json ? !field->is_literal : !is_plain(field->value, value_size(field));
    enum style style = json ? JSON : quoted ? QUOTED : PLAIN;
    used += (size_t)sprintf(out + used, json ? ",\"" : " ");
    used += put_escaped(out + used, field->name, name_size, json ? JSON : PLAIN);
    used += (size_t)sprintf(out + used, "%s%s%s", taken ? "_" : "", json ? "\":" : "=",
                            quoted ? "\"" : "");
    used += put_escaped(out + used, field->value, value_size(field), style);
    return used + (size_t)sprintf(out + used, "%s", quoted ? "\"" : "");
}

/* ---- the line ---- */

struct evpt_log_line *evpt_log_line_new(const struct evpt_log *log, enum evpt_log_level level,
                                        const char *service, const char *message, size_t size,
                                        const struct evpt_log_field *fields, size_t count)
{
    static const char cut[] = " [cut]";
    enum style style = log->json ? JSON : PLAIN;
    const char *name = service && *service ? service : "-";
    size_t name_size = strnlen(name, SERVICE_MAX);
    size_t kept = size > EVPT_LOG_MESSAGE_MAX ? EVPT_LOG_MESSAGE_MAX : size;
    size_t worst = sizeof(struct evpt_log_line) + FRAME_MAX + (name_size + kept) * ESCAPED_MAX +
                   worst_of_fields(fields, count);
    struct evpt_log_line *line = evpt_sys_alloc(worst);
    if (!line)
        return NULL;
    char time_text[64], *text = line->text;
    format_time(time_text, sizeof(time_text));
    const char *head = log->json
                           ? "{\"time\":\"%s\",\"level\":\"%s\",\"node\":\"%s\",\"service\":\""
                           : "%s %s %s ";
    size_t used =
        (size_t)snprintf(text, FRAME_MAX, head, time_text, evpt_log_level_name(level), log->node);
    used += put_escaped(text + used, name, name_size, style);
    used += (size_t)sprintf(text + used, "%s", log->json ? "\",\"message\":\"" : " ");
    used += put_escaped(text + used, message, kept, style);
    used += (size_t)sprintf(text + used, "%s%s", kept < size ? cut : "", log->json ? "\"" : "");
    for (size_t i = 0; i < count; i++)
        used += put_field(text + used, &fields[i], log->json);
    used += (size_t)sprintf(text + used, log->json ? "}\n" : "\n");
    line->size = used;
    struct evpt_log_line *fitted = evpt_sys_realloc(line, sizeof(*line) + used);
    return fitted ? fitted : line;
}
