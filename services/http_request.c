#include "services/http_request.h"

#include <string.h>
#include <strings.h>

/* ---- characters ---- */

/* tchar: what names of methods and fields are made of */
static bool is_token(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

static bool is_visible(char c)
{
    return c > 0x20 && c < 0x7f;
}

/* In the value of a field: visible, blank, or a byte of some other character set. */
static bool is_field_byte(char c)
{
    return is_visible(c) || c == ' ' || c == '\t' || (unsigned char)c >= 0x80;
}

/* ---- a piece of text that is not terminated ---- */

struct text {
    const char *at;
    size_t size;
};

static bool equals(struct text text, const char *word)
{
    return text.size == strlen(word) && memcmp(text.at, word, text.size) == 0;
}

static bool equals_folded(struct text text, const char *word)
{
    return text.size == strlen(word) && strncasecmp(text.at, word, text.size) == 0;
}

/* The part in front of `stop`, which is stepped over; all of it where there is none. */
static struct text cut(struct text *rest, char stop)
{
    const char *found = rest->size ? memchr(rest->at, stop, rest->size) : NULL;
    struct text part = {rest->at, found ? (size_t)(found - rest->at) : rest->size};
    size_t taken = part.size + (found != NULL);
    rest->at += taken;
    rest->size -= taken;
    return part;
}

static struct text trim(struct text text)
{
    while (text.size && (*text.at == ' ' || *text.at == '\t')) {
        text.at++;
        text.size--;
    }
    while (text.size && (text.at[text.size - 1] == ' ' || text.at[text.size - 1] == '\t'))
        text.size--;
    return text;
}

static bool all(struct text text, bool (*may_stand)(char c))
{
    for (size_t i = 0; i < text.size; i++) {
        if (!may_stand(text.at[i]))
            return false;
    }
    return true;
}

/* ---- the request line ---- */

static bool is_line_byte(char c)
{
    return is_visible(c) || c == ' ';
}

/* origin-form, or absolute-form, which a server has to understand as well */
static int read_target(struct evpt_http_request *request, struct text target)
{
    static const char scheme[] = "http://";
    if (target.size >= sizeof(scheme) - 1 &&
        strncasecmp(target.at, scheme, sizeof(scheme) - 1) == 0) {
        target.at += sizeof(scheme) - 1;
        target.size -= sizeof(scheme) - 1;
        const char *slash = memchr(target.at, '/', target.size);
        if (!slash || slash == target.at)
            return -400;
        target.size -= (size_t)(slash - target.at);
        target.at = slash;
    }
    if (!target.size || *target.at != '/' || memchr(target.at, '#', target.size))
        return -400;
    struct text path = cut(&target, '?');
    request->path = path.at;
    request->path_size = path.size;
    return 0;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static int read_version(struct evpt_http_request *request, struct text version)
{
    request->close = equals(version, "HTTP/1.0");
    if (request->close || equals(version, "HTTP/1.1"))
        return 0;
    bool other = version.size == 8 && memcmp(version.at, "HTTP/", 5) == 0 &&
                 is_digit(version.at[5]) && version.at[6] == '.' && is_digit(version.at[7]);
    return other ? -505 : -400;
}

static int read_request_line(struct evpt_http_request *request, struct text line)
{
    struct text rest = line;
    struct text method = cut(&rest, ' '), target = cut(&rest, ' ');
    if (!method.size || !all(method, is_token) || !all(target, is_visible))
        return -400;
    int error = read_version(request, rest);
    if (!error)
        error = read_target(request, target);
    if (error)
        return error;
    request->head = equals(method, "HEAD");
    return request->head || equals(method, "GET") ? 0 : -405;
}

/* ---- fields ---- */

struct fields {
    bool need_host; /* HTTP/1.1 names the host that it means, even if there is only one */
    unsigned count, hosts, lengths;
};

static int read_field(struct evpt_http_request *request, struct fields *fields, struct text line)
{
    struct text rest = line;
    struct text name = cut(&rest, ':');
    /* no name, a blank before the colon, a continued line (it begins with a blank), no colon */
    if (!name.size || !all(name, is_token) || name.size == line.size || !all(rest, is_field_byte))
        return -400;
    if (++fields->count > EVPT_HTTP_FIELDS_MAX)
        return -431;
    struct text value = trim(rest);
    if (equals_folded(name, "host"))
        return ++fields->hosts > 1 || !value.size ? -400 : 0;
    if (equals_folded(name, "transfer-encoding"))
        return -400; /* a body, which no request here has */
    if (equals_folded(name, "content-length"))
        return ++fields->lengths > 1 || !equals(value, "0") ? -400 : 0;
    while (equals_folded(name, "connection") && value.size) {
        struct text option = cut(&value, ',');
        if (equals_folded(trim(option), "close"))
            request->close = true;
    }
    return 0;
}

/* ---- lines ---- */

/* The next line without its CR LF: 1, 0 where it goes on, or -400 where something stands in it that
 * cannot be in any line. */
static int next_line(struct text *rest, struct text *ret_line, bool (*may_stand)(char c))
{
    const char *end = rest->size ? memchr(rest->at, '\n', rest->size) : NULL;
    struct text line = {rest->at, end ? (size_t)(end - rest->at) : rest->size};
    bool has_cr = line.size && line.at[line.size - 1] == '\r';
    if (has_cr)
        line.size--;
    if (!all(line, may_stand) || (end && !has_cr))
        return -400;
    *ret_line = line;
    if (!end)
        return 0;
    rest->size -= (size_t)(end + 1 - rest->at);
    rest->at = end + 1;
    return 1;
}

static int read_lines(struct evpt_http_request *request, struct text *rest)
{
    struct text line;
    struct fields fields = {0};
    size_t seen = rest->size;
    int got = next_line(rest, &line, is_line_byte);
    if (got == 0)
        return seen > EVPT_HTTP_LINE_MAX ? -414 : 0;
    if (got > 0 && line.size > EVPT_HTTP_LINE_MAX)
        return -414;
    int error = got < 0 ? got : read_request_line(request, line);
    fields.need_host = !request->close;
    while (!error) {
        got = next_line(rest, &line, is_field_byte);
        if (got <= 0)
            return got;
        if (!line.size)
            return fields.need_host && !fields.hosts ? -400 : 1;
        error = read_field(request, &fields, line);
    }
    return error;
}

int evpt_http_request_read(struct evpt_http_request *ret_request, const uint8_t *bytes, size_t size)
{
    struct evpt_http_request request = {0};
    size_t shown = size < EVPT_HTTP_HEAD_MAX ? size : EVPT_HTTP_HEAD_MAX;
    struct text rest = {(const char *)bytes, shown};
    int got = read_lines(&request, &rest);
    if (got == 0 && shown == EVPT_HTTP_HEAD_MAX)
        return -431;
    if (got <= 0)
        return got;
    *ret_request = request;
    return (int)(rest.at - (const char *)bytes);
}

const char *evpt_http_status_text(int status)
{
    static const struct {
        int status;
        const char *text;
    } texts[] = {
        {200, "200 OK"},
        {400, "400 Bad Request"},
        {404, "404 Not Found"},
        {405, "405 Method Not Allowed"},
        {408, "408 Request Timeout"},
        {414, "414 URI Too Long"},
        {431, "431 Request Header Fields Too Large"},
        {503, "503 Service Unavailable"},
        {505, "505 HTTP Version Not Supported"},
    };
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        if (texts[i].status == status)
            return texts[i].text;
    }
    return "500 Internal Server Error";
}
