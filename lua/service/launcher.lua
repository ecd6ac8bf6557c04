-- launcher: starts the services and stops them.
-- Start: clusterclient, clusterserver, console, the configured services in their order; then doAfterInit of each, clusterserver's last: it
-- opens the port, and what comes in from then on finds every service ready. Stop is the same backwards.
local evpt = require "evpt"
local builtin = require "evpt.builtin"
local request = evpt.core.request

local infrastructure = { "clusterclient", "clusterserver", "console" }
local started = {} -- handles of services in the order of their start, those started by evpt.start included

local function must(what, code, failure)
    if code ~= 0 then
        error(("%s: %s"):format(what, failure.message), 0)
    end
end

local function start(script, name, handle, args)
    must(("service %s"):format(name), request(handle, ".start", script, table.unpack(args, 1, args.n)))
end

function __main__()
    for _, name in ipairs(infrastructure) do
        start(name, name, evpt.query(name), { n = 0 })
    end
    for _, service in ipairs(builtin.config().services) do
        local handle = evpt.core.spawn(service.script, service.name)
        start(service.script, service.name, handle, service.args)
        started[#started + 1] = { handle = handle, name = service.name }
    end
    for _, service in ipairs { table.unpack(started) } do
        local code, failure = request(service.handle, ".after_init")
        -- one that has ended itself meanwhile has nothing to initialise
        if code ~= 0 and evpt.query(service.name) == service.handle then
            must(("service %s: doAfterInit"):format(service.name), code, failure)
        end
    end
    for _, name in ipairs { "console", "clusterclient", "clusterserver" } do
        must(("service %s: doAfterInit"):format(name), request(evpt.query(name), ".after_init"))
    end
    builtin.tell_main("started")
end

-- In-flight requests finish, new ones are refused. What has not finished after most of the time that a stop may take is given up: the
-- rest is for the services' own on_stop.
local function drain()
    local me, over = coroutine.running(), false
    local function finish()
        over = true
        evpt.wakeup(me)
    end
    local limit_ms = builtin.config().stop_timeout_ms * 3 // 4
    local timer = evpt.timeout(limit_ms, function()
        evpt.log.warn("requests in progress did not finish within %d ms: they are given up", limit_ms)
        finish()
    end)
    evpt.fork(function()
        must("drain", request(builtin.control(), "drain"))
        finish()
    end)
    if not over then
        evpt.wait()
    end
    if evpt.cancel(timer) then
        evpt.log.info("drained: no request is in progress any more")
    end
end

local function stop()
    drain()
    for i = #started, 1, -1 do
        local code, failure = request(started[i].handle, ".stop")
        if code == 7 then
            evpt.log.error("service %s: on_stop: %s", started[i].name or started[i].handle, failure.message)
        end
    end
    builtin.tell_main("stopped")
end

local stopping = false

evpt.methods {
    --- A service was started while the node runs.
    adopt = function(handle)
        started[#started + 1] = { handle = handle }
        if #started % 1024 == 0 then -- forget those that have ended
            local alive = {}
            for _, service in ipairs(builtin.services()) do
                alive[service.handle] = true
            end
            local kept = {}
            for _, service in ipairs(started) do
                kept[#kept + 1] = alive[service.handle] and service or nil
            end
            started = kept
        end
    end,
    stop = function()
        if not stopping then
            stopping = true
            evpt.fork(stop)
        end
    end,
}
