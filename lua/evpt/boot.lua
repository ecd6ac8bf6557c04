-- The life cycle of a service: what the launcher calls. Their names begin with a dot, which no service's own methods can.
local evpt = require "evpt"
local core = evpt.core

-- `require` takes Lua modules as text only, as scripts are: a binary chunk can crash the interpreter.
package.searchers[3] = function(name)
    local path, tried = package.searchpath(name, package.path)
    if not path then
        return tried
    end
    local chunk, problem = loadfile(path, "t")
    if not chunk then
        error(("error loading module '%s' from file '%s':\n\t%s"):format(name, path, problem), 0)
    end
    return chunk, path
end

local function load_script(script)
    local builtin = core.source("service." .. script)
    if builtin then
        return builtin
    end
    local path, tried = package.searchpath(script, package.path)
    if not path then
        error(("no script '%s':%s"):format(script, tried), 0)
    end
    local chunk, problem = loadfile(path, "t")
    if not chunk then
        error(problem, 0)
    end
    return chunk
end

local boot = {}

boot[".start"] = function(script, ...)
    load_script(script)()
    core.refresh()
    if __main__ then
        __main__(...)
        core.refresh()
    end
    collectgarbage() -- what compiling has left behind: a third of what a small service holds
end

boot[".after_init"] = function()
    if doAfterInit then
        doAfterInit()
        core.refresh()
    end
end

-- The hooks of on_stop, the last one first. All run, also where one fails.
boot[".stop"] = function()
    local hooks, failure = core.stop_hooks(), nil
    for i = #hooks, 1, -1 do
        local ok, problem = xpcall(hooks[i], debug.traceback)
        if not ok then
            evpt.log.error("on_stop: %s", problem)
            failure = failure or problem
        end
    end
    if failure then
        error(failure, 0)
    end
end

-- A node's connection has changed (evpt/cluster.lua, on_change).
boot[".status"] = function(node, status)
    local cluster = require "evpt.cluster"
    for _, handler in ipairs(cluster.core.status_handlers) do
        evpt.fork(handler, node, status)
    end
end

return boot
