-- The tour of tools/demo: runs in game_1 beside the lobby, calls the arena on battle_1, and tells
-- what it sees in a pipe that tools/demo reads. A line that starts with "!" asks tools/demo to do
-- something to the processes; the file of that name is there once it is done.
local evpt    = require "evpt"
local cluster = require "evpt.cluster"

local pipe
local function clock() return evpt.time() * 1000 end   -- finer than evpt.now(): milliseconds and parts
local function tell(fmt, ...) pipe:write(fmt:format(...), "\n") end
local function chapter(text) tell("# %s", text) end
local function ask(what)
    tell("!%s", what)
    while true do
        local done = io.open("done." .. what)
        if done then done:close() return end
        evpt.sleep(10)
    end
end
local function wait_for(condition)
    while not condition() do evpt.sleep(1) end
end

local function with_callback()
    chapter "remoteCall with a callback: game_1 asks battle_1 for a seat"
    local started, answered = clock(), false
    local session = cluster.remoteCall("battle_1", "arena", "join", { player = "ada", level = 7 },
        function(session, code, seat)
            tell("callback(session %d, code %d, seat %s) after %.1f ms", session, code, seat,
                 clock() - started)
            answered = true
        end)
    tell("sent as session %d; the service goes on at once", session)
    wait_for(function() return answered end)
end

local function calls_back()
    chapter "a call that waits, to a method that itself calls back to game_1"
    cluster.call("battle_1", "arena", "join", { player = "bob", level = 5 })
    for _ = 1, 2 do
        tell("%s", cluster.call("battle_1", "arena", "strike", "game_1", "ada", "bob"))
    end
    local code, e = cluster.try("battle_1", "arena", "strike", "game_1", "eve", "bob")
    tell("an error on the way: code %d, executed \"%s\"", code, e.executed)
    tell("%s", e)
end

local function one_mebibyte()
    chapter "an argument of 1 MiB"
    local part = {}
    for i = 1, 256 do part[i] = string.char(i * 7 % 256) end
    local bytes = table.concat(part):rep(4096)
    local started = clock()
    local size, sum = cluster.call("battle_1", "arena", "replay", bytes)
    tell("battle_1 got %d bytes, checksum %08x, in %.1f ms", size, sum, clock() - started)
end

local function send()
    chapter "remoteSend: nobody waits, and the order is kept"
    for i = 1, 100 do
        assert(cluster.remoteSend("battle_1", "arena", "say", { text = "line " .. i }))
    end
    tell("battle_1 has %d lines, the last one is \"%s\"", cluster.call("battle_1", "arena", "said"))
end

local function killed()
    chapter "battle_1 is killed (SIGKILL) while 1000 calls are pending"
    local outcomes, answered, twice, first, last = {}, 0, 0, nil, nil
    for i = 1, 1000 do
        local had = false
        cluster.remoteCall("battle_1", "arena", "round", {}, function(_, code, e)
            if had then twice = twice + 1 return end
            had, answered = true, answered + 1
            first, last = first or clock(), clock()
            local key = ("%s, executed \"%s\""):format(e.name, e.executed)
            outcomes[key] = (outcomes[key] or 0) + 1
        end)
    end
    cluster.call("battle_1", "arena", "said")   -- behind them all: now battle_1 has read them
    tell("1000 calls are pending")
    ask "kill"
    wait_for(function() return answered == 1000 end)
    evpt.sleep(50)                              -- a second answer would come now
    for key, count in pairs(outcomes) do tell("%d x %s", count, key) end
    tell("answered once: %d, twice: %d, all within %.1f ms", answered, twice, last - first)
    assert(answered == 1000 and twice == 0)
end

local function restarted()
    chapter "battle_1 is started again: the first call"
    ask "restart"
    local started = clock()
    tell("seat %d, in %.1f ms, with the new connection", cluster.call("battle_1", "arena", "join",
         { player = "ada", level = 7 }), clock() - started)
end

local function added()
    chapter "battle_2 joins: the node list is rewritten while the others run"
    tell("before: %s", select(2, cluster.try("battle_2", "arena", "said")))
    ask "add"
    tell("after: ada has seat %d on battle_2", cluster.call("battle_2", "arena", "join",
         { player = "ada", level = 7 }))
end

function __main__(path)
    pipe = assert(io.open(path, "w"))
    pipe:setvbuf "line"
end

function doAfterInit()
    evpt.fork(function()
        local ok, e = xpcall(function()
            with_callback()
            calls_back()
            one_mebibyte()
            send()
            killed()
            restarted()
            added()
        end, debug.traceback)
        if not ok then tell("!failed %s", tostring(e):gsub("\n", " ")) end
        tell "!end"
    end)
end
