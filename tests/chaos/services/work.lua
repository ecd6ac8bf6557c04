-- Who is called. Writes down what it executes before it does anything else.
local evpt = require "evpt"
local content = require "content"
local journal = require "journal"

local number

local function take(params)
    local seed, index, bytes = params[1], params[2], params[3]
    if math.type(index) ~= "integer" or bytes ~= content.bytes(seed, index) then
        journal("damaged", 0, number)
        error("damaged", 0)
    end
    journal("executed", index, number)
    return { index, content.bytes(seed + 1, index) }
end

evpt.export {
    work = take,
    slow = function(params)
        local answer = take(params)
        evpt.sleep(params[2] % 50)
        return answer
    end,
    fail = function(params)
        take(params)
        error("as it should", 0)
    end,
    collect = function() collectgarbage() end,
    sink = function() end,
    big = function(bytes) return ("x"):rep(bytes) end,
}

function __main__(with_number) number = with_number end
