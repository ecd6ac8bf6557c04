-- `require "evpt"`: what a service is made of. Most of it is in C (lua/api.c); here is the rest.
local evpt = require "evpt.core"
local core = evpt.core

-- ---- nested coroutines ----
-- A script may run coroutines of its own and wait inside them. evpt's yields bear a token; whoever resumes such a coroutine passes the
-- yield on to whoever resumed it, up to the scheduler, and what the scheduler answers down again.

local token = core.yield_token()
local create, resume, yield = coroutine.create, coroutine.resume, coroutine.yield
local running, status, close = coroutine.running, coroutine.status, coroutine.close

local function pass_on(co, ok, first, ...)
    if ok and first == token and status(co) == "suspended" then
        return pass_on(co, resume(co, yield(token)))
    end
    return ok, first, ...
end

function coroutine.resume(co, ...)
    return pass_on(co, resume(co, ...))
end

local function raise_or_return(co, ok, ...)
    if ok then
        return ...
    end
    close(co)
    error((...), 0)
end

function coroutine.wrap(fn)
    local co = create(fn)
    return function(...)
        return raise_or_return(co, pass_on(co, resume(co, ...)))
    end
end

-- ---- wait and wakeup ----

local parked = setmetatable({}, { __mode = "k" }) -- coroutine -> session of its wait

--- Suspends the running coroutine until evpt.wakeup(co).
function evpt.wait()
    local co = running()
    parked[co] = core.park_new()
    core.park()
end

--- Lets a coroutine that waits go on; true if it did wait.
function evpt.wakeup(co)
    if type(co) ~= "thread" then
        error("evpt.wakeup: expected a coroutine, got a " .. type(co), 2)
    end
    local session = parked[co]
    parked[co] = nil
    return session ~= nil and core.unpark(session)
end

--- A function that runs its argument with no other one in between, in the order of the calls, waits included.
-- The function that has the queue may enter it again.
function evpt.queue()
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
function evpt.start(script, options)
    if type(script) ~= "string" then
        error("evpt.start: expected the name of a script, got a " .. type(script), 2)
    end
    options = options or {}
    for key, value in pairs(options) do
        if type(value) ~= start_options[key] then
            error(("evpt.start: %s: %s"):format(tostring(key), start_options[key]
                and "expected a " .. start_options[key] .. ", got a " .. type(value) or "unknown option"), 2)
        end
    end
    local args = options.args or {}
    local handle = core.spawn(script, options.name)
    local sent, code, failure = pcall(run_main, handle, script, args)
    if not sent then -- it cannot wait here, or an argument cannot travel (the script's name travels in front of them)
        evpt.kill(handle)
        error((code:gsub("^evpt:evpt:%d+: ", ""):gsub("^argument (%d+)", function(number)
            return ("evpt.start: args[%d]"):format(number - 1)
        end)), 2)
    end
    if code ~= 0 then
        evpt.kill(handle)
        error((failure.message:gsub("\nstack traceback:.*", "")), 0)
    end
    evpt.send("launcher", "adopt", handle) -- which runs its doAfterInit
    return handle
end

-- ---- log ----

evpt.log = {}
for level, name in ipairs { "debug", "info", "warn", "error" } do
    evpt.log[name] = function(format, ...)
        if core.log_wants(level - 1) then
            core.log(level - 1, select("#", ...) > 0 and format:format(...) or tostring(format))
        end
    end
end

function print(...)
    local parts = table.pack(...)
    for i = 1, parts.n do
        parts[i] = tostring(parts[i])
    end
    core.log(1, table.concat(parts, "\t"))
end

return evpt
