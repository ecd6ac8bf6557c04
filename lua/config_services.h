/* The key `services` of evpt.lua. Private to config_load.c. */
#ifndef EVPT_LUA_CONFIG_SERVICES_H
#define EVPT_LUA_CONFIG_SERVICES_H

#include "lua/load.h"

#define EVPT_SERVICE_ARGS_MAX 255 /* as many as a call in Lua can spell out */

/* Reads the list at a stack index in place of the services that the configuration has. What is read
 * belongs to it at once, complete or not, so problems and raised errors leave nothing behind that
 * evpt_config_fini does not find. */
void evpt_config_read_services(struct evpt_load *load, struct evpt_config *config, lua_State *L,
                               int index);

#endif
