---@meta evpt

-- Annotations for editors that speak LuaLS (lua-language-server): add this folder to `workspace.library`. Nothing here runs.
-- The words are those of docs/lua-api.md.

---@class evpt
---@field log evpt.log
local evpt = {}

---What travels between services and nodes: no functions, userdata, coroutines or cycles.
---@alias evpt.value nil|boolean|integer|number|string|table

---The name of a service or, on its own node, its handle.
---@alias evpt.service string|integer

---What a call ends with: 0 is good.
---@alias evpt.code
---| 0 # ok
---| 1 # unknown_node
---| 2 # connect_failed
---| 3 # disconnected
---| 4 # timeout
---| 5 # unknown_service
---| 6 # unknown_method
---| 7 # failed
---| 8 # overloaded
---| 9 # too_large
---| 10 # bad_message
---| 11 # stopping
---| 12 # denied

---What `call` raises; `tostring` gives one line.
---@class evpt.error
---@field code evpt.code
---@field name string `"timeout"`
---@field message string
---@field node string
---@field service string
---@field method string
---@field executed "no"|"maybe"|"yes" `"no"`: certainly not executed, safe to repeat

---@class evpt.start_options
---@field name? string registered under this name
---@field args? evpt.value[] arguments of `__main__`

---@class evpt.update_options
---@field dry_run? boolean only look

---@class evpt.update_result
---@field file string
---@field dry_run boolean
---@field services evpt.update_report[]

---What has changed in one service: names of functions, and lines.
---@class evpt.update_report
---@field name string
---@field handle integer
---@field changed string[]
---@field added string[]
---@field removed string[]
---@field unchanged string[]
---@field kept string[]
---@field missing string[]
---@field not_run string[]

---@class evpt.timer: integer

---Calls a method of a service of this node and waits. Raises an `evpt.error`.
---@async
---@param service evpt.service
---@param method string
---@param ... evpt.value
---@return evpt.value ...
function evpt.call(service, method, ...) end

---As `call`, but returns the code first: 0 and the results, or a code and an `evpt.error`.
---@async
---@param service evpt.service
---@param method string
---@param ... evpt.value
---@return evpt.code code
---@return any ... results, or an `evpt.error`
function evpt.try(service, method, ...) end

---Sends; nobody answers.
---@param service evpt.service
---@param method string
---@param ... evpt.value
---@return true|nil sent nil: it is certainly lost
---@return evpt.error? error
function evpt.send(service, method, ...) end

---@class evpt.export_options
---@field from? string[] names of the nodes that may call, `*` for any characters; without it all may

---Adds methods that other nodes may call, and this one's services as well.
---@param methods table<string, function>
---@param options? evpt.export_options
function evpt.export(methods, options) end

---Adds methods that only this node's services may call.
---@param methods table<string, function>
function evpt.methods(methods) end

---Answers a message that `_msg_dispatch_` has got. Session 0 wants no answer.
---@param source integer
---@param session integer
---@param code integer 0 and the results, or another and a text
---@param ... evpt.value
function evpt.reply(source, session, code, ...) end

---Starts a service and waits until its `__main__` has returned. Raises what that raised.
---@async
---@param script string
---@param options? evpt.start_options
---@return integer handle
function evpt.start(script, options) end

---Ends this service. Does not return.
function evpt.exit() end

---Ends another service; it gets no say.
---@param service evpt.service
---@return boolean found
function evpt.kill(service) end

---Puts the code of a script, a service or a module in place of what runs; state stays. Raises a text where something is wrong: then
---nothing has changed.
---@async
---@param name string|integer
---@param options? evpt.update_options
---@return evpt.update_result
function evpt.update(name, options) end

---This service's handle: what other services of this node may call it by.
---@return integer handle
---@nodiscard
function evpt.self() end

---The name that this service was started under; the script's where it was given none.
---@return string
---@nodiscard
function evpt.name() end

---The name of this node.
---@return string
---@nodiscard
function evpt.node() end

---The service of that name on this node.
---@param name string
---@return integer? handle
---@nodiscard
function evpt.query(name) end

---Registers this service under a name; raises where it is taken.
---@param name string
function evpt.register(name) end

---Runs `fn(...)` in a coroutine of its own, soon.
---@param fn async fun(...)
---@param ... any
function evpt.fork(fn, ...) end

---Waits.
---@async
---@param ms number
function evpt.sleep(ms) end

---Runs `fn()` in a coroutine of its own that much later.
---@param ms number
---@param fn async fun()
---@return evpt.timer timer
function evpt.timeout(ms, fn) end

---@param timer evpt.timer
---@return boolean cancelled true: it had not run, and never will
function evpt.cancel(timer) end

---Milliseconds of a clock that never jumps.
---@return integer
---@nodiscard
function evpt.now() end

---The wall clock: seconds since 1970.
---@return number
---@nodiscard
function evpt.time() end

---Waits for `evpt.wakeup` with this coroutine.
---@async
function evpt.wait() end

---Lets a coroutine that is in `evpt.wait` go on.
---@param co thread
---@return boolean found it did wait
function evpt.wakeup(co) end

---A function that runs its argument with no other one in between, waits included, and returns its results.
---@return async fun(fn: function, ...): ...any
---@nodiscard
function evpt.queue() end

---`fn()` runs when the node stops; the last one given runs first. It may wait.
---@param fn async fun()
function evpt.on_stop(fn) end

---Behind the arguments that the format takes may stand a table of fields: `evpt.log.info("joined", {player = 17})`
---@class evpt.log
evpt.log = {}

---@param format any with arguments, a format of `string.format`
---@param ... any
function evpt.log.debug(format, ...) end

---@param format any with arguments, a format of `string.format`
---@param ... any
function evpt.log.info(format, ...) end

---@param format any with arguments, a format of `string.format`
---@param ... any
function evpt.log.warn(format, ...) end

---@param format any with arguments, a format of `string.format`
---@param ... any
function evpt.log.error(format, ...) end

return evpt
