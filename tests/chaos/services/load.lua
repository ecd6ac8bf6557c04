-- Who calls: many coroutines, in every style there is. Writes down each call before it is made, and each outcome.
local evpt = require "evpt"
local cluster = require "evpt.cluster"
local content = require "content"
local journal = require "journal"

local options -- see begin
local started, finished, good, failed, running, stopping = 0, 0, 0, 0, 0, false

local function note(index, target, t0, timeout_ms, code, r, method)
    local late = math.max(0, evpt.now() - t0 - timeout_ms)
    finished = finished + 1
    if code ~= 0 then
        failed = failed + (code == 7 and 0 or 1)
        journal("outcome", index, target.number, late, code, r.executed)
    elseif method ~= "fail" and type(r) == "table" and r[1] == index and r[2] == content.bytes(options.seed + 1, index) then
        good = good + 1
        journal("outcome", index, target.number, late, 0, "yes")
    else
        failed = failed + 1
        journal("outcome", index, target.number, late, 255)
    end
    return code
end

local function by_coroutine(index, target, method, params, timeout_ms)
    local t0 = evpt.now()
    local proxy = cluster.proxy(target.node, target.service, { timeout_ms = timeout_ms })
    local ok, r = pcall(proxy[method], params)
    return note(index, target, t0, timeout_ms, ok and 0 or r.code, r, method)
end

local function by_callback(index, target, method, params, timeout_ms)
    local co, t0, got = coroutine.running(), evpt.now(), nil
    cluster.remoteCall(target.node, target.service, method, params, function(_, code, r)
        got = note(index, target, t0, timeout_ms, code, r, method)
        evpt.wakeup(co)
    end, timeout_ms)
    while not got do
        evpt.wait()
    end
    return got
end

local function send(index, target, params)
    journal("send", index, target.number)
    local ok, e = cluster.remoteSend(target.node, target.service, "work", params)
    if not ok then
        journal("unsent", index, target.number, 0, e.code, e.executed)
    end
    return 0
end

-- One call or send; its code.
local function one()
    started = started + 1
    local index = options.base + started
    local target = options.targets[math.random(#options.targets)]
    local params = { options.seed, index, content.bytes(options.seed, index) }
    local chance = math.random(100)
    if chance <= 10 then
        return send(index, target, params)
    end
    local timeout_ms = chance <= 20 and math.random(1, 100) or options.timeout_ms
    local method = chance <= 85 and "work" or chance <= 95 and "slow" or "fail"
    journal("call", index, target.number, timeout_ms)
    local call = math.random(2) == 1 and by_coroutine or by_callback
    return call(index, target, method, params, timeout_ms)
end

local function caller()
    while not stopping do
        local code = one()
        -- Where nobody is there each call fails at once: no reason to spin.
        evpt.sleep(code == 0 and math.random(0, options.think_ms) or 10)
    end
    running = running - 1
end

evpt.export {
    --- options: base: the number before that of the first call; seed; coroutines; think_ms; timeout_ms; targets: { node, service, number }
    begin = function(with)
        options, stopping, running = with, false, with.coroutines
        started, finished, good, failed = 0, 0, 0, 0
        math.randomseed(with.seed, with.base)
        for _ = 1, with.coroutines do
            evpt.fork(caller)
        end
    end,
    stop = function() stopping = true end,
    progress = function() return { running = running, good = good, failed = failed } end,
    --- One call to a node, now: its code.
    reach = function(node)
        local code = cluster.try(node, "work_1", "big", 1)
        return code
    end,
    collect = function() collectgarbage() end,
    --- So many sends at once, each with as many bytes.
    flood = function(node, count, bytes)
        local text = ("x"):rep(bytes)
        for _ = 1, count do
            cluster.remoteSend(node, "work_2", "sink", text)
        end
    end,
}
