-- clusterserver: opens the port when every service is ready. What comes in through it is C (services/clusterserver.c).
-- The port is not opened by the cluster thread itself, which starts earlier: requests would then find services that are not there yet (SEED.md).
local evpt = require "evpt"
local builtin = require "evpt.builtin"

local control = builtin.control()

clusterName = {} -- node name -> "ip:port" or false

function __main__()
    local problems
    clusterName, problems = builtin.load_node_list()
    if not clusterName then
        error(table.concat(problems, "\n"), 0)
    end
end

--- The cluster thread listens.
function onInitListened(address)
    local loopback = address:match("^127%.") or address:match("^%[::1%]")
    evpt.log.info("listening on %s", address)
    if builtin.config().tls then
        evpt.log.info("with TLS: only who shows a certificate of the CA gets in")
    elseif not loopback then
        evpt.log.warn("%s is no loopback address and there is no transport security: whoever reaches it can call "
            .. "every exported service", address)
    end
end

function startListen()
    local code, result = evpt.try(control, "listen")
    if code ~= 0 then
        error(("%s: %s: %s"):format(builtin.config().clustername, evpt.node(), result.message), 0)
    end
    onInitListened(result)
end

function doAfterInit()
    startListen()
end

--- How a request goes on: the answers of services come back to the pinned service of the same name and leave on the connection that
-- the request came in on; one whose connection is gone is dropped there. Counters of that:
local function counters()
    return evpt.call(control, "stat")
end

function _recv_data_(event, ...)
    evpt.log.debug("%s %s", event, table.concat({ ... }, " "))
end

function onDisconnect(connection)
    evpt.log.debug("connection %s is gone", connection)
end

local commands = { counters = counters }

--- The answer to a command.
local function callback(source, session, ok, ...)
    if ok then
        evpt.reply(source, session, 0, ...)
    else
        evpt.reply(source, session, 7, tostring((...)))
    end
end

function _msg_dispatch_(source, session, method, ...)
    if method == "_recv_data_" then
        _recv_data_(...)
    elseif commands[method] then
        callback(source, session, pcall(commands[method], ...))
    else
        evpt.reply(source, session, 6, "clusterserver has no method " .. method)
    end
end
