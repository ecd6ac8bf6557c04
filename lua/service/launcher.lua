-- launcher: starts the services and stops them.
-- Start: clusterclient, clusterserver, console, the configured services in their order; then doAfterInit of each, clusterserver's last: it
-- opens the port, and what comes in from then on finds every service ready. Stop is the same backwards.
local evpt = require "evpt"
local builtin = require "evpt.builtin"
local core = require "evpt.core"
local request = core.request

local infrastructure = { "clusterclient", "clusterserver", "console" }
local all_initialised = false
local started = {} -- services in the order of their start, those started by evpt.start included: { handle =, name =, script = }

-- Ends the start where evpt's own part of it has failed: in the words of who failed, which are one line.
local function must(code, failure)
    if code ~= 0 then
        error((failure.message:gsub("\nstack traceback:.*", "")), 0)
    end
end

-- The same for a service: the traceback is that of its script, if it was a script that failed.
local function must_service(what, code, failure)
    if code ~= 0 then
        local text = failure.message:gsub("\nstack traceback:\n\t%[C%]: in %?$", "")
        if text:find("^no script") then
            what = ("%s: services"):format(builtin.config().file or "--set")
        end
        error(("%s: %s"):format(what, text), 0)
    end
end

function __main__()
    for _, name in ipairs(infrastructure) do
        must(request(evpt.query(name), ".start", name))
    end
    for _, service in ipairs(builtin.config().services) do
        local handle = core.spawn(service.script, service.name)
        must_service(("service %s"):format(service.name),
            request(handle, ".start", service.script, table.unpack(service.args, 1, service.args.n)))
        started[#started + 1] = { handle = handle, name = service.name, script = service.script }
    end
    local i = 1
    while i <= #started do -- services that these start come behind them
        local service = started[i]
        local code, failure = request(service.handle, ".after_init")
        if code == 7 then
            must_service(("service %s: doAfterInit"):format(service.name or service.handle), code, failure)
        end
        i = i + 1
    end
    all_initialised = true
    must(request(builtin.main(), "open")) -- admin socket and pidfile: who reaches the port finds them
    for _, name in ipairs { "console", "clusterclient", "clusterserver" } do
        must(request(evpt.query(name), ".after_init"))
    end
    builtin.tell_main("started")
end

-- Waits until no request of another node is in progress, at most limit_ms. True: none is.
local function wait_for_requests(limit_ms)
    local me, waiting, done = coroutine.running(), true, false
    local timer = evpt.timeout(limit_ms, function()
        waiting = false
        evpt.wakeup(me)
    end)
    evpt.fork(function()
        done = request(builtin.control(), "drain") == 0
        if waiting then
            evpt.wakeup(me)
        end
    end)
    evpt.wait()
    evpt.cancel(timer)
    return done
end

-- New requests are refused from here on. Those in progress finish, then on_stop runs in each service, the last one started first. A request
-- that does not finish by itself in half the time that a stop may take may be waiting for just that: it has until most of the rest is over.
local function stop()
    local limit_ms = builtin.config().stop_timeout_ms
    local drained = wait_for_requests(limit_ms // 2)
    for i = #started, 1, -1 do
        local code, failure = request(started[i].handle, ".stop")
        if code == 7 then
            evpt.log.error("service %s: on_stop: %s", started[i].name or started[i].handle, failure.message)
        end
    end
    request(builtin.control(), "refuse") -- what is left of the services cannot start anything on other nodes any more
    if not drained and not wait_for_requests(limit_ms * 2 // 5) then
        evpt.log.warn("requests of other nodes are given up: they are still in progress")
    end
    builtin.tell_main("stopped")
end

local stopping = false
local rollout -- of code updates; loaded with the first

evpt.methods {
    --- A service was started while the node runs.
    adopt = function(handle, script)
        started[#started + 1] = { handle = handle, script = script }
        if all_initialised then
            local code, failure = request(handle, ".after_init")
            if code == 7 then
                evpt.log.error("service %d: doAfterInit: %s", handle, failure.message)
            end
        end
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
    --- Updates the code of what has this name. -> true, what has changed; or false, one line.
    update = function(name, dry_run)
        rollout = rollout or builtin.source("update.rollout")(evpt, builtin, core)
        return pcall(rollout.run, started, name, dry_run)
    end,
    stop = function()
        if not stopping then
            stopping = true
            evpt.fork(stop)
        end
    end,
}
