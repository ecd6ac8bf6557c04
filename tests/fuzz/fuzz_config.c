/* evpt.lua and the values of --set: refused with problems of one line each, or everything within
 * its bounds (SPEC section 2). The input is the file, then, each behind a zero byte, overrides; at
 * the back, which allocation is refused. */
#include "fuzz.h"

#include "cluster/msgpack.h"
#include "lua/config_load.h"
#include "reactor/error.h"
#include "services/scheduler.h"

#include <string.h>

#define OVERRIDES_MAX 8

static void on_problem(const char *line, void *user)
{
    FUZZ_CHECK(!strchr(line, '\n'));
    FUZZ_CHECK(strncmp(line, "conf/evpt.lua:", 14) == 0 || strncmp(line, "--set:", 6) == 0);
    ++*(size_t *)user;
}

static void check_service(const struct evpt_config_service *service)
{
    struct evpt_reader reader;
    uint32_t count;
    FUZZ_CHECK(service->script && service->name);
    if (!service->args)
        return;
    evpt_reader_init(&reader, service->args, service->args_size);
    FUZZ_CHECK(evpt_read_array(&reader, &count) == 0);
    evpt_reader_init(&reader, service->args, service->args_size);
    FUZZ_CHECK(evpt_read_skip(&reader, 65) == 0 && reader.at == reader.end);
}

static void check_config(const struct evpt_config *config)
{
    FUZZ_CHECK(config->clustername && config->path && config->cpath);
    FUZZ_CHECK(config->workers <= EVPT_WORKERS_MAX);
    FUZZ_CHECK(config->log.level <= EVPT_LOG_ERROR);
    FUZZ_CHECK(config->cluster.message_max >= 1024 && config->cluster.message_max <= 1 << 30);
    FUZZ_CHECK(config->cluster.send_buffer_max >= 65536);
    FUZZ_CHECK(config->cluster.pending_max > 0 && config->cluster.cache_max > 0);
    FUZZ_CHECK(config->mailbox_max > 0);
    FUZZ_CHECK(config->lua_memory_max == 0 || config->lua_memory_max >= 1 << 20);
    struct evpt_addr addr;
    FUZZ_CHECK(!config->admin || evpt_addr_local(&addr, config->admin) == 0);
    for (size_t i = 0; i < config->service_count; i++)
        check_service(&config->services[i]);
}

/* Overrides in place: each ends with the zero byte of the next, or of the copy. */
static size_t split(char *text, size_t size, const char *overrides[OVERRIDES_MAX],
                    size_t *ret_file_size)
{
    size_t count = 0;
    *ret_file_size = strlen(text);
    for (size_t at = *ret_file_size + 1; at < size && count < OVERRIDES_MAX;
         at += strlen(text + at) + 1)
        overrides[count++] = text + at;
    return count;
}

void fuzz_one(struct fuzz_input *in)
{
    struct evpt_config config = {0};
    const char *overrides[OVERRIDES_MAX];
    unsigned refuse = fuzz_byte(in);
    size_t size, file_size, problems = 0;
    char *text = evpt_sys_alloc(fuzz_left(in) + 1);
    FUZZ_CHECK(text);
    const uint8_t *bytes = fuzz_take(in, fuzz_left(in), &size);
    memcpy(text, bytes, size);
    text[size] = 0;
    size_t count = split(text, size, overrides, &file_size);
    fuzz_set_file(text, file_size);
    if (refuse >= 128)
        (void)fuzz_refuse_allocation(refuse - 127);
    int error =
        evpt_config_load(&config, "conf/evpt.lua", overrides, count, "n1", on_problem, &problems);
    (void)fuzz_refuse_allocation(0);
    FUZZ_CHECK(error == (problems ? -EVPT_EFORMAT : 0));
    if (!error)
        check_config(&config);
    evpt_config_fini(&config);
    evpt_sys_free(text);
}
