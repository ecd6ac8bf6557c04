#include "services/config.h"

#include "reactor/sys.h"
#include <string.h>

void evpt_config_fini(struct evpt_config *config)
{
    if (!config)
        return;
    for (size_t i = 0; i < config->service_count; i++) {
        evpt_sys_free(config->services[i].script);
        evpt_sys_free(config->services[i].name);
        evpt_sys_free(config->services[i].args);
    }
    evpt_sys_free(config->services);
    evpt_sys_free(config->file);
    evpt_sys_free(config->clustername);
    evpt_sys_free(config->path);
    evpt_sys_free(config->cpath);
    evpt_sys_free(config->log.file);
    evpt_sys_free(config->admin);
    evpt_sys_free(config->tls.cert);
    evpt_sys_free(config->tls.key);
    evpt_sys_free(config->tls.ca);
    memset(config, 0, sizeof(*config));
}
