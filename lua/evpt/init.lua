-- The part of `evpt` that is written in Lua: what few services need (evpt_call_lua in lua/api_modules.c). The first call of a function runs
-- this. Between a function and the script that calls it lies one in C: level 3 of `error` is the script.
local evpt, core = ...
local running = coroutine.running
local functions = {}

--- A function that runs its argument with no other one in between, in the order of the calls, waits included.
-- The function that has the queue may enter it again.
function functions.queue()
    local owner, depth = nil, 0
    local waiting, first, last = {}, 1, 0
    local function leave(ok, ...)
        depth = depth - 1
        if depth == 0 then
            owner = waiting[first]
            if owner then
                waiting[first] = nil
                first = first + 1
                evpt.wakeup(owner)
            end
        end
        if not ok then
            error((...), 0)
        end
        return ...
    end
    return function(fn, ...)
        local me = running()
        if owner and owner ~= me then
            last = last + 1
            waiting[last] = me
            repeat
                evpt.wait()
            until owner == me
        end
        owner, depth = me, depth + 1
        return leave(pcall(fn, ...))
    end
end

-- ---- services ----

local start_options = { name = "string", args = "table" }

local function run_main(handle, script, args)
    return core.request(handle, ".start", script, table.unpack(args, 1, args.n or #args))
end

--- Starts a service and waits until its __main__ has returned; raises what that raised. -> handle
function functions.start(script, options)
    if type(script) ~= "string" then
        error("evpt.start: expected the name of a script, got a " .. type(script), 3)
    end
    if options ~= nil and type(options) ~= "table" then
        error("evpt.start: expected a table of options, got a " .. type(options), 3)
    end
    options = options or {}
    for key, value in pairs(options) do
        if type(value) ~= start_options[key] then
            error(("evpt.start: %s: %s"):format(tostring(key), start_options[key]
                and "expected a " .. start_options[key] .. ", got a " .. type(value) or "unknown option"), 3)
        end
    end
    local args = options.args or {}
    local spawned, handle = pcall(core.spawn, script, options.name)
    if not spawned then
        error("evpt.start: " .. handle, 3)
    end
    local sent, code, failure = pcall(run_main, handle, script, args)
    if not sent then -- it cannot wait here, or an argument cannot travel (the script's name travels in front of them)
        evpt.kill(handle)
        error((code:gsub("^evpt:evpt:%d+: ", ""):gsub("^argument (%d+)", function(number)
            return ("evpt.start: args[%d]"):format(number - 1)
        end)), 3)
    end
    if code ~= 0 then
        evpt.kill(handle)
        error((failure.message:gsub("\nstack traceback:.*", "")), 0)
    end
    evpt.send("launcher", "adopt", handle, script) -- which runs its doAfterInit
    return handle
end

--- Replaces the code of what has this name, a script, a service or a module, by what its file holds now. -> what has changed; raises one
-- line where something is wrong: then nothing has changed.
function functions.update(name, options)
    if type(name) ~= "string" and math.type(name) ~= "integer" then
        error("evpt.update: expected the name of a script, a service or a module, got a " .. type(name), 3)
    elseif type(options) ~= "table" and options ~= nil then
        error("evpt.update: expected a table of options, got a " .. type(options), 3)
    end
    for key in pairs(options or {}) do
        if key ~= "dry_run" then
            error(("evpt.update: %s: unknown option"):format(tostring(key)), 3)
        end
    end
    local dry_run = options and options.dry_run
    local code, ok, result = core.request("launcher", "update", tostring(name), dry_run)
    if code ~= 0 then
        error(ok.message, 0)
    elseif not ok then
        error(result, 0)
    end
    return result
end

return functions
