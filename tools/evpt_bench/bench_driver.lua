-- The caller of `evpt-bench --local`: a service that loads another one, in this node or the next. evpt-bench (driver.c) tells it when to
-- begin and to stop, and takes what has been measured; an open loop has its schedule there, too, since sleep() counts in milliseconds.
local evpt = require "evpt"
local cluster = require "evpt.cluster"

local try, send = cluster.try, cluster.send
local meter = require "bench_meter".new()
local lap, lag, clock = meter.lap, meter.lag, meter.clock

local SERVICE, METHOD = "bench_echo", "echo"
local BURST = 16            -- of so many sends the last is a call: its answer says that the others have been handled
local PAYLOADS = 256        -- arguments of different sizes are made beforehand, so that their making is not measured ...
local PAYLOAD_BYTES = 64e6  -- ... and are fewer where they would take more than this

local nodes, services       -- the callees
local beside                -- bench_beside makes calls, too
local what                  -- "call" or "send"
local limit                 -- messages, or slots, that may be started
local started, missed
local active                -- callers, or calls of an open loop, that have not ended
local in_flight             -- as many may be
local begin_ns, slot_ns     -- open loop: slot i is due at begin_ns + i * slot_ns
local slots
local waiting               -- the coroutine of run(), once it waits
local unanswered_bytes      -- of sends
local payloads

local function make_payloads(min, max)
    local count = min == max and 1 or math.max(8, math.min(PAYLOADS, PAYLOAD_BYTES // max))
    math.randomseed(1) -- the same in each run, so that runs compare
    local bytes, list = {}, {}
    for i = 1, 4096 do
        bytes[i] = string.char(math.random(0, 255))
    end
    local piece = table.concat(bytes)
    for i = 1, count do
        local size = math.random(min, max)
        list[i] = piece:rep(size // #piece + 1):sub(1, size)
    end
    return list
end

-- Bytes of the first n messages: message n has the argument payloads[n % #payloads + 1].
local function bytes_of(n)
    local bytes, count = 0, #payloads
    for i = 1, count do
        bytes = bytes + #payloads[i] * (n // count)
    end
    for i = 1, n % count do
        bytes = bytes + #payloads[i % count + 1]
    end
    return bytes
end

local function names(base, count)
    local list = {}
    for i = 1, count do
        list[i] = base .. "_" .. i
    end
    return list
end

local function one_of(list, number)
    return list[number % #list + 1]
end

local function left()
    active = active - 1
    if active == 0 and started >= limit and waiting then
        evpt.wakeup(waiting)
    end
end

-- ---- closed loop: each caller starts its next call when the last one has ended ----

-- A caller stays with its node, so that as many are in flight to each all the time: what comes and goes together stays together,
-- however many nodes there are. Services take turns.
local function caller(number)
    local node, service = one_of(nodes, number), services[1]
    local many = #services > 1
    local since = clock(meter)
    while started < limit do
        started = started + 1
        if many then
            service = one_of(services, started)
        end
        since = lap(meter, 1, since, try(node, service, METHOD, payloads[started % #payloads + 1]))
    end
    left()
end

-- How many more messages the next call confirms: 1, or 0 where this one has failed already.
local function send_one(number)
    local text = payloads[number % #payloads + 1]
    local ok, failure = send(nodes[1], SERVICE, METHOD, text)
    unanswered_bytes = unanswered_bytes + #text
    if ok then
        return 1
    end
    local now = clock(meter)
    lap(meter, 1, now, failure.code)
    return 0
end

local function sender()
    local since = clock(meter)
    while started < limit do
        local first, last = started + 1, math.min(started + BURST, limit)
        started = last
        local covers = 1
        for number = first, last - 1 do
            covers = covers + send_one(number)
        end
        since = lap(meter, covers, since, try(nodes[1], SERVICE, METHOD, payloads[last % #payloads + 1]))
    end
    left()
end

-- ---- open loop: a coroutine for each slot ----

local unconfirmed = 0

local function slot_call(number, covers, intended)
    local node, service = one_of(nodes, number), one_of(services, number)
    lap(meter, covers, intended, try(node, service, METHOD, payloads[number % #payloads + 1]))
    left()
end

local function start_slot(slot)
    if active >= in_flight then
        missed = missed + 1
        return
    end
    local intended = begin_ns + math.floor(slot * slot_ns)
    lag(meter, intended)
    if what == "send" and unconfirmed < BURST - 1 and slots < limit then
        unconfirmed = unconfirmed + send_one(slots)
        return
    end
    local covers = unconfirmed + 1
    unconfirmed = 0
    active = active + 1
    evpt.fork(slot_call, slots, covers, intended)
end

local function is_open()
    return slot_ns ~= nil
end

-- Sends that nothing confirms yet get a call behind them.
local function confirm_rest()
    if unconfirmed > 0 then
        local covers = unconfirmed
        unconfirmed = 0
        active = active + 1
        evpt.fork(slot_call, slots, covers, clock(meter))
    end
end

-- ---- what evpt-bench asks for ----

evpt.export {
    -- The first call to a node connects the two. -> code, text
    reach = function(plan)
        nodes = plan.peers > 0 and names(plan.node, plan.peers) or { plan.node }
        services = plan.services > 1 and names(SERVICE, plan.services) or { SERVICE }
        for _, node in ipairs(nodes) do
            local code, text = try(node, services[1], METHOD)
            if code ~= 0 then
                return code, tostring(text)
            end
        end
        beside = plan.beside > 0
        if beside then
            evpt.call("bench_beside", "start", nodes[1], plan.beside)
        end
        return 0, ""
    end,

    -- One run. Returns when it is over: when it began and ended, what was started and missed,
    -- the bytes of arguments and results, and the calls of bench_beside in so many nanoseconds.
    run = function(plan)
        what, limit, in_flight = plan.what, plan.count, plan.in_flight
        if not payloads then
            payloads = make_payloads(plan.size_min, plan.size_max)
        end
        started, missed, unanswered_bytes, slots, unconfirmed, active = 0, 0, 0, 0, 0, 0
        slot_ns = plan.rate > 0 and 1e9 / plan.rate or nil
        begin_ns = plan.begin_ns
        if beside then
            evpt.send("bench_beside", "mark")
        end
        if not is_open() then
            begin_ns = clock(meter)
            local callers = math.min(in_flight, limit)
            active = callers
            for i = 1, callers do
                evpt.fork(what == "call" and caller or sender, i)
            end
        end
        waiting = coroutine.running()
        repeat
            evpt.wait()
        until active == 0
        waiting = nil
        local now = clock(meter)
        local beside_calls, beside_ns = 0, 0
        if beside then
            beside_calls, beside_ns = evpt.call("bench_beside", "since_mark")
        end
        local bytes = bytes_of(started - missed) -- where sizes differ: those of as many messages
        return begin_ns, now, started - missed, missed, bytes, bytes - unanswered_bytes, beside_calls, beside_ns
    end,

    -- Open loop: the first `n` slots are due.
    due = function(n)
        n = math.min(n, limit or 0)
        while slots < n do
            slots = slots + 1
            start_slot(slots - 1)
        end
        started = slots
        if slots == limit then
            confirm_rest()
            if active == 0 and waiting then
                evpt.wakeup(waiting)
            end
        end
    end,

    -- Nothing new is started. -> the time, messages that had an outcome since the last take
    stop = function()
        local now, ended = clock(meter), meter:ended()
        limit = started
        confirm_rest()
        if active == 0 and waiting then
            evpt.wakeup(waiting)
        end
        return now, ended
    end,

    -- -> outcomes, latency, lag: since the last take
    take = function()
        return meter:take()
    end,
}
