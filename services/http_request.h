/* The head of an HTTP/1.1 request, read strictly (RFC 9112): what is not exactly right is refused.
 *
 * Pure: bytes in, facts out. It is given all bytes that have come since the end of the last
 * request, again and again with more of them; a mistake is found as soon as its bytes are there.
 */
#ifndef EVPT_SERVICES_HTTP_REQUEST_H
#define EVPT_SERVICES_HTTP_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EVPT_HTTP_LINE_MAX 2048 /* bytes of the request line: a path and a query */
#define EVPT_HTTP_HEAD_MAX 8192 /* bytes of all; what browsers send is shorter */
#define EVPT_HTTP_FIELDS_MAX 64

struct evpt_http_request {
    const char *path; /* without the query; in the given bytes, not terminated */
    size_t path_size;
    bool head;  /* HEAD: the answer of GET without its body */
    bool close; /* the client wants no further request on this connection, or knows no better */
};

/* How many bytes the head takes (a request without a body ends there), 0 where it goes on, or the
 * negative status of what is wrong: 400; 405 no GET or HEAD; 414, 431 too long; 505. */
int evpt_http_request_read(struct evpt_http_request *ret_request, const uint8_t *bytes,
                           size_t size);
/* "404 Not Found" for those that evpt sends. */
const char *evpt_http_status_text(int status);

#endif
