-- clusterclient: policy of the connections to other nodes. The path of each request is C (services/clusterclient.c); here are the node
-- list, its reload and rewrite, and who is told when a connection comes or goes.
local evpt = require "evpt"
local cluster = require "evpt.cluster"
local builtin = require "evpt.builtin"

local control = builtin.control()
local one_at_a_time = evpt.queue()

clusterName = {}       -- node name -> {ip=, port=}, or false where the node is known and down
connectStatusDict = {} -- node name -> "disconnect" | "connecting" | "connected" | "down"
local subscribers = {} -- handles of services that called cluster.on_change

local function problems_text(problems)
    return table.concat(problems, "\n")
end

local function parse_address(address)
    if not address then
        return false
    end
    local ip, port = address:match("^%[(.*)%]:(%d+)$")
    if not ip then
        ip, port = address:match("^(.*):(%d+)$")
    end
    return { ip = ip, port = math.tointeger(tonumber(port)) }
end

-- Checks a node list (the file's where text is nil); raises with every problem.
local function load_list(text)
    local list, problems = builtin.load_node_list(text)
    if not list then
        error(problems_text(problems), 0)
    end
    local own = list[evpt.node()]
    if own ~= builtin.own_address() then
        error(("%s: %s: expected %q, the address this node was started with (another needs a restart), got %q")
            :format(builtin.config().clustername, evpt.node(), builtin.own_address(), tostring(own)), 0)
    end
    return list
end

local function apply(list)
    local diff = evpt.call(control, "apply", list)
    clusterName = {}
    for name, address in pairs(list) do
        clusterName[name] = parse_address(address)
    end
    for name in pairs(connectStatusDict) do -- each "down" has been told before the answer
        if clusterName[name] == nil then
            connectStatusDict[name] = nil
        end
    end
    return diff
end

local function names(list)
    table.sort(list)
    return #list > 0 and table.concat(list, " ") or "-"
end

-- Certificates and key, for connections that come later. Where one of them is bad, those before stay in force.
local function load_tls()
    local code, failure = evpt.try(control, "load_tls")
    if code ~= 0 then
        error("tls: " .. failure.message, 0)
    end
end

local function reload_uncounted(text)
    local list = load_list(text)
    if builtin.config().tls then
        load_tls()
    end
    if text then
        builtin.replace_node_list(text)
    end
    local diff = apply(list)
    evpt.log.info("node list reloaded: added %s, removed %s, changed %s", names(diff.added), names(diff.removed),
        names(diff.changed))
    return diff
end

local function reload(text)
    local ok, diff = pcall(reload_uncounted, text)
    builtin.count_reload(ok)
    return ok and diff or error(diff, 0)
end

-- ---- what the cluster thread says ----

--- A connection to a node is gone. Its requests have been answered already, each once.
function onDisconnect(node, detail)
    evpt.log.debug("%s: %s", node, detail)
end

--- An event of the cluster thread (services/clusterclient.c, tell_observer).
function _recv_data_(event, node, status, detail)
    local before = connectStatusDict[node]
    connectStatusDict[node] = status
    if before == "connected" then
        onDisconnect(node, detail)
    end
    for handle in pairs(subscribers) do
        if not evpt.send(handle, ".status", node, status) then
            subscribers[handle] = nil -- it has ended
        end
    end
end

-- ---- what services ask ----

--- The answer to a remoteCall that came in as a message.
local function callback(source, session)
    return function(_, code, rtbl)
        evpt.reply(source, session, code, code == 0 and rtbl or rtbl.message)
    end
end

--- remoteCall and remoteSend as messages: the same as the functions of evpt.cluster, for those who speak to this service directly.
function remoteCall(source, session, node, service, method, params, timeout_ms)
    cluster.remoteCall(node, service, method, params, callback(source, session), timeout_ms)
end

function remoteSend(source, session, node, service, method, params)
    evpt.reply(source, session, 0, cluster.remoteSend(node, service, method, params))
end

local commands = {
    reload = function()
        return one_at_a_time(reload)
    end,
    rewrite = function(text)
        if type(text) ~= "string" then
            error("rewrite: expected the text of a node list, got a " .. type(text), 0)
        end
        return one_at_a_time(reload, text)
    end,
    --- The same for a signal, which gets no answer: the log has it.
    reload_logged = function()
        local ok, problem = pcall(one_at_a_time, reload)
        if not ok then
            evpt.log.error("reload refused, everything stays as it was: %s", problem)
        end
    end,
    subscribe = function(handle)
        subscribers[handle] = true
    end,
    status = function()
        return connectStatusDict, clusterName
    end,
}

local function answer(source, session, ok, ...)
    if ok then
        evpt.reply(source, session, 0, ...)
    else
        evpt.reply(source, session, 7, tostring((...)))
    end
end

--- Every message comes in here.
function _msg_dispatch_(source, session, method, ...)
    if method == "_recv_data_" then
        _recv_data_(...)
    elseif method == "remoteCall" then
        remoteCall(source, session, ...)
    elseif method == "remoteSend" then
        remoteSend(source, session, ...)
    elseif commands[method] then
        answer(source, session, pcall(commands[method], ...))
    else
        evpt.reply(source, session, 6, "clusterclient has no method " .. method)
    end
end

function __main__()
    local list = load_list()
    for name, address in pairs(list) do
        connectStatusDict[name] = address and "disconnect" or "down"
    end
    evpt.call(control, "observe", evpt.self())
    apply(list)
end
