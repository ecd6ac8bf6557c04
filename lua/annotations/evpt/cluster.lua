---@meta evpt.cluster

---@class evpt.cluster
local cluster = {}

---@alias evpt.status
---| "disconnect" # nobody has called it yet, or the connection is gone
---| "connecting"
---| "connected"
---| "down" # `false` in the node list

---@class evpt.node
---@field ip? string
---@field port? integer
---@field status evpt.status

---@class evpt.node_changes
---@field added string[]
---@field removed string[]
---@field changed string[]

---@class evpt.proxy_options
---@field timeout_ms? number

---Calls an exported method of a service on a node and waits. Raises an `evpt.error`.
---@async
---@param node string
---@param service string
---@param method string
---@param ... evpt.value
---@return evpt.value ...
function cluster.call(node, service, method, ...) end

---As `call`, but returns the code first: 0 and the results, or a code and an `evpt.error`.
---@async
---@param node string
---@param service string
---@param method string
---@param ... evpt.value
---@return evpt.code code
---@return any ... results, or an `evpt.error`
function cluster.try(node, service, method, ...) end

---Sends; nobody answers.
---@param node string
---@param service string
---@param method string
---@param ... evpt.value
---@return true|nil sent nil: it is certainly lost
---@return evpt.error? error
function cluster.send(node, service, method, ...) end

---Calls without waiting. `callback` runs exactly once, in this service: with code 0 and the method's first result, or another code and an `evpt.error`.
---@param node string
---@param service string
---@param method string
---@param params evpt.value the method's only argument
---@param callback async fun(session: integer, code: evpt.code, rtbl: any)
---@param timeout_ms? number
---@return integer session
function cluster.remoteCall(node, service, method, params, callback, timeout_ms) end

---Sends; nobody answers.
---@param node string
---@param service string
---@param method string
---@param params evpt.value the method's only argument
---@return true|nil sent nil: it is certainly lost
---@return evpt.error? error
function cluster.remoteSend(node, service, method, params) end

---An object whose methods are calls of that service, which wait.
---@param node string
---@param service string
---@param options? evpt.proxy_options
---@return table<string, async fun(...): ...any> proxy
---@nodiscard
function cluster.proxy(node, service, options) end

---The node list, with the status of each connection.
---@return table<string, evpt.node>
---@nodiscard
function cluster.nodes() end

---Reads the node list anew and waits. Raises where it is not valid: then nothing has changed.
---@async
---@return evpt.node_changes
function cluster.reload() end

---Replaces the node list's file by this text and reads it; waits. Raises where the text is not valid: then nothing has changed.
---@async
---@param text string
---@return evpt.node_changes
function cluster.rewrite(text) end

---`fn(node, status)` runs whenever the status of a node's connection changes.
---@param fn async fun(node: string, status: evpt.status)
function cluster.on_change(fn) end

return cluster
