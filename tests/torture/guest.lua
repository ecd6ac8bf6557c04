-- Comes and goes (room.lua: life).
local evpt = require "evpt"
local turn = evpt.queue()
local count = 0

function __main__(n)
    for _ = 1, n do
        evpt.fork(function()
            turn(function()
                evpt.sleep(1)
                count = count + 1
            end)
        end)
    end
    evpt.sleep(20)
end

evpt.methods {
    count = function()
        return count
    end,
}
