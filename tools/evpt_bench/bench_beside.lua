-- `evpt-bench --local --beside BYTES`: long calls that keep the connection busy while bench_driver measures its own. A service of its
-- own calls one of its own, so that the two loads share the nodes, their threads and the connection, and no mailbox.
local evpt = require "evpt"
local cluster = require "evpt.cluster"
local meter = require "bench_meter".new()

local SERVICE, METHOD = "bench_echo_beside", "echo"
local IN_FLIGHT = 4

local ended, marked_ns = 0, 0
local failure

local function caller(node, text)
    while not failure do
        local code, result = cluster.try(node, SERVICE, METHOD, text)
        if code ~= 0 then
            failure = result
        elseif result ~= text then
            failure = "another text came back"
        end
        ended = ended + 1
    end
end

evpt.methods {
    -- Returns when the first call has ended: from then on there is load.
    start = function(node, size)
        local text = ("beside"):rep(size // 6 + 1):sub(1, size)
        cluster.call(node, SERVICE, METHOD, text)
        for _ = 1, IN_FLIGHT do
            evpt.fork(caller, node, text)
        end
    end,

    mark = function()
        ended, marked_ns = 0, meter:clock()
    end,

    -- -> calls, nanoseconds
    since_mark = function()
        if failure then
            error("--beside: " .. tostring(failure), 0)
        end
        return ended, meter:clock() - marked_ns
    end,
}
