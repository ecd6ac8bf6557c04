-- The part of `evpt.cluster` that is written in Lua; see init.lua.
local evpt, core = ...
local functions = {}

--- An object whose methods are remote calls: proxy("battle_1", "room").join(id).
-- options.timeout_ms: the deadline of its calls.
function functions.proxy(node, service, options)
    if type(node) ~= "string" or type(service) ~= "string" then
        error(("cluster.proxy: expected the names of a node and a service, got a %s and a %s"):format(type(node),
            type(service)), 3)
    end
    if options ~= nil and type(options) ~= "table" then
        error("cluster.proxy: expected a table of options, got a " .. type(options), 3)
    end
    for key, value in pairs(options or {}) do
        if key ~= "timeout_ms" then
            error(("cluster.proxy: %s: unknown option"):format(tostring(key)), 3)
        elseif type(value) ~= "number" or not (value >= 0) then
            error("cluster.proxy: timeout_ms: expected a number of milliseconds, got " .. tostring(value), 3)
        end
    end
    local timeout_ms = options and options.timeout_ms
    return setmetatable({}, {
        __index = function(self, method)
            local function call(...)
                return core.call_within(timeout_ms, node, service, method, ...)
            end
            rawset(self, method, call)
            return call
        end,
        __tostring = function()
            return ("proxy of %s/%s"):format(node, service)
        end,
    })
end

-- Raises what went wrong in clusterclient without the envelope of the local call.
local function ask(method, ...)
    local code, result = evpt.try("clusterclient", method, ...)
    if code ~= 0 then
        error(result.message, 0)
    end
    return result
end

--- Reads the node list anew. -> {added=, removed=, changed=}; raises where the file is not valid: then nothing has changed.
function functions.reload()
    return ask("reload")
end

--- Replaces the node list's file and reads it. Raises where the text is not valid: then nothing has changed.
function functions.rewrite(text)
    return ask("rewrite", text)
end

--- fn(node, status) runs in this service whenever the status of a node's connection changes.
function functions.on_change(fn)
    if type(fn) ~= "function" then
        error("cluster.on_change: expected a function, got a " .. type(fn), 3)
    end
    core.on_status(fn)
    evpt.send("clusterclient", "subscribe", evpt.self())
end

return functions
