-- Tarantool for tools/bench/peers: net.box calls of a Lua function that echoes 64 bytes, a fiber for each call in flight.
--
--     tarantool tarantool.lua server SOCKET DIR        runs until it is killed
--     tarantool tarantool.lua client SOCKET IN_FLIGHT SECONDS
--
-- Prints "CALLS_PER_SECOND P50_NS", after half a second of warm-up. SOCKET is ip:port.
local clock = require "clock"
local fiber = require "fiber"

local role, address = arg[1], arg[2]

if role == "server" then
    box.cfg { listen = address, work_dir = arg[3], log = arg[3] .. "/tarantool.log", wal_mode = "none", memtx_memory = 64 * 1024 * 1024 }
    function echo(text)
        return text
    end
    box.schema.func.create("echo", { if_not_exists = true })
    box.schema.user.grant("guest", "execute", "function", "echo", { if_not_exists = true })
    return
end

local in_flight, seconds = tonumber(arg[3]), tonumber(arg[4])
local connection = require "net.box".connect(address, { wait_connected = 10 })
assert(connection:is_connected(), "cannot connect to " .. address)

local arguments = { ("x"):rep(64) }
local measuring, running = false, true
local count, times = 0, {}

local function caller()
    local since = clock.monotonic()
    while running do
        connection:call("echo", arguments)
        local now = clock.monotonic()
        if measuring then
            count = count + 1
            if count % 16 == 1 or in_flight == 1 then -- a sample is enough for the median
                times[#times + 1] = now - since
            end
        end
        since = now
    end
end

local callers = {}
for i = 1, in_flight do
    callers[i] = fiber.create(caller)
    callers[i]:set_joinable(true)
end
fiber.sleep(0.5)
measuring = true
local began = clock.monotonic()
fiber.sleep(seconds)
local total, took = count, clock.monotonic() - began
running = false
for i = 1, in_flight do
    callers[i]:join()
end
table.sort(times)
print(("%.0f %.0f"):format(total / took, times[math.ceil(#times / 2)] * 1e9))
os.exit(0)
