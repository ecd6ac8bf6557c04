-- The service of the scenarios (scenarios.c).
local evpt = require "evpt"
local cluster = require "evpt.cluster"

evpt.export {
    echo = function(...)
        return ...
    end,
    fails = function()
        error "as asked"
    end,
}

evpt.methods {
    -- A call to that node's room, with so many bytes.
    ask = function(node, size)
        return #cluster.call(node, "room", "echo", ("x"):rep(size), { list = { 1, 2.5, "three" } }) == size and "good" or "bad"
    end,
    -- The same with a callback: never twice. (Where there is no memory to begin it, it may not come.)
    ask_later = function(node)
        local called = 0
        cluster.remoteCall(node, "room", "echo", { 1, 2 }, function()
            called = called + 1
        end, 500)
        for _ = 1, 20 do
            evpt.sleep(50)
        end
        return called < 2 and "good" or "twice"
    end,
    send = function(node)
        cluster.remoteSend(node, "room", "echo", { 1 })
        return "sent"
    end,
    ask_for_failure = function(node)
        return (cluster.try(node, "room", "fails"))
    end,
    reload = function()
        local diff = cluster.reload()
        return ("+%d -%d ~%d"):format(#diff.added, #diff.removed, #diff.changed)
    end,
    -- A service that lives and dies.
    life = function()
        local handle = evpt.start("guest", { args = { 3 } })
        assert(evpt.call(handle, "count") == 3)
        local timer = evpt.timeout(5, function() end)
        evpt.sleep(10)
        evpt.cancel(timer)
        evpt.kill(handle)
        return evpt.try(handle, "count") == 0 and "alive" or "dead"
    end,
}
