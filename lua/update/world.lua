-- A fresh world for a script to run in: what it makes at its top level comes into being once more, and nothing of the running service is
-- touched. An update makes two, one of the code that runs and one of the new code, and carries the difference over (update.lua).
--
-- A world has globals of its own, its own copies of the libraries' tables, and its own instance of each module that is written in Lua. What
-- acts on anything else (a call, a timer, a file that is written) is not run: it returns a token, which raises when it is used.
-- `world.live` says of which object of the service one of the world is the counterpart, as far as that is known beforehand.
local debug, own_module, restrict = ...
local World = {}

local RUN_MAX_MS = 2000       -- how long a world may take to run: one that takes longer has an endless loop
local RUN_LOOK_EVERY = 100000 -- instructions between two looks at the clock

--- The unit that is the service's script, in the place of a module's name.
World.SCRIPT = true

local STANDARD = { "_VERSION", "assert", "collectgarbage", "dofile", "error", "getmetatable", "ipairs", "load", "loadfile", "next", "pairs",
    "pcall", "print", "rawequal", "rawget", "rawlen", "rawset", "require", "select", "setmetatable", "tonumber", "tostring", "type", "warn",
    "xpcall" }
local LIBRARIES = { "coroutine", "debug", "io", "math", "os", "package", "string", "table", "utf8" }

-- What is run as it is: it only looks, or makes something of its own. Whatever else these modules have, now or later, is not.
local HARMLESS = {
    evpt = { self = true, name = true, node = true, query = true, now = true, time = true, queue = true },
    ["evpt.cluster"] = { nodes = true, proxy = true },
    debug = { traceback = true, getinfo = true },
}
local NOT_RUN = { -- what Lua's other libraries have that acts on more than the world
    io = { "close", "input", "output", "popen", "read", "tmpfile", "write" },
    os = { "execute", "exit", "remove", "rename", "setlocale", "tmpname" },
    package = { "loadlib" },
}

local TOKEN_EVENTS = { "__index", "__newindex", "__call", "__concat", "__len", "__eq", "__lt", "__le", "__unm", "__add", "__sub", "__mul",
    "__div", "__mod", "__pow", "__idiv", "__band", "__bor", "__bxor", "__shl", "__shr", "__bnot", "__pairs", "__tostring", "__close" }

-- ---- stand-ins ----

-- `stub` is to the world what `real` is to the service.
local function stand_in(world, real, stub)
    world.live[stub] = real
    return stub
end

-- Stands for what a function would have returned.
local function make_token(world, name)
    local meta = {}
    local function refuse()
        error(("what %s returns is used at the top level, where an update does not run it"):format(name), 2)
    end
    for _, event in ipairs(TOKEN_EVENTS) do
        meta[event] = refuse
    end
    local token = setmetatable({}, meta)
    world.tokens[token] = name
    return token
end

-- Functions given to what is not run, to a fork or a timer, are reached by nothing else as a rule.
local function keep(world, place, ...)
    for i = 1, select("#", ...) do
        local value = select(i, ...)
        if type(value) == "function" then
            world.given[place] = value
        end
    end
end

local function not_run(world, real, name)
    local token = make_token(world, name)
    return stand_in(world, real, function(...)
        local count = (world.not_run[name] or 0) + 1
        world.not_run[name] = count
        keep(world, ("%s[%d]"):format(name, count), ...)
        return token
    end)
end

local function silent(world, real, result)
    return stand_in(world, real, function()
        return result
    end)
end

-- ---- libraries ----

local function is_lua_function(value)
    return type(value) == "function" and debug.getinfo(value, "S").what ~= "C"
end

-- The table without what scripts may have put into it: they will do so again.
local function copy_library(world, real)
    local copy = {}
    for key, value in next, real do
        if type(value) ~= "table" and not is_lua_function(value) then
            copy[key] = value
        end
    end
    return stand_in(world, real, copy)
end

local function open_for_reading(world, real)
    local refused = not_run(world, real, "io.open")
    return stand_in(world, real, function(path, mode)
        return ((mode == nil or mode == "r" or mode == "rb") and real or refused)(path, mode)
    end)
end

local function copy_libraries(world)
    local globals, live = world.globals, world.service.loaded
    for _, name in ipairs(LIBRARIES) do
        local copy = copy_library(world, live[name] or {}) -- a script may have taken one away from itself
        for key, value in next, copy do
            if HARMLESS[name] and not HARMLESS[name][key] then
                copy[key] = not_run(world, value, name .. "." .. key)
            end
        end
        for _, key in ipairs(NOT_RUN[name] or {}) do
            copy[key] = copy[key] and not_run(world, copy[key], name .. "." .. key)
        end
        globals[name], world.loaded[name] = copy, copy
    end
    globals.io.open = open_for_reading(world, globals.io.open)
    globals.math.randomseed = silent(world, globals.math.randomseed)
    globals.package.loaded = world.loaded
    globals.package.preload = copy_library(world, live.package.preload)
    globals.package.searchers = copy_library(world, live.package.searchers)
end

-- ---- globals ----

local function set_globals(world)
    local globals, live = world.globals, world.service.globals
    for _, name in ipairs(STANDARD) do
        globals[name] = rawget(live, name)
    end
    globals._G, world.loaded._G = globals, globals
    globals.print = silent(world, globals.print)
    globals.warn = silent(world, globals.warn)
    globals.collectgarbage = silent(world, globals.collectgarbage, 0)
    globals.load = stand_in(world, load, function(text, name, mode, ...)
        if select("#", ...) == 0 then
            return load(text, name, mode, globals)
        end
        return load(text, name, mode, ...)
    end)
    globals.loadfile = stand_in(world, loadfile, function(path, mode, ...)
        if select("#", ...) == 0 then
            return loadfile(path, mode, globals)
        end
        return loadfile(path, mode, ...)
    end)
    globals.dofile = stand_in(world, dofile, function(path)
        return assert(loadfile(path, nil, globals))()
    end)
    globals.require = stand_in(world, globals.require, function(name)
        return world:require(name)
    end)
    local of_strings = copy_library(world, debug.getmetatable(""))
    of_strings.__index = globals.string
    world.string_metatable = of_strings
    globals.getmetatable = stand_in(world, globals.getmetatable, function(value)
        if type(value) == "string" then
            return of_strings
        end
        return getmetatable(value)
    end)
end

-- ---- evpt's modules ----

-- As evpt.export and evpt.methods check it.
local function add_methods(into, methods)
    if type(methods) ~= "table" then
        error("bad argument: table expected, got " .. type(methods), 3)
    end
    for name, fn in next, methods do
        if type(name) ~= "string" or type(fn) ~= "function" then
            error(("expected a table of functions by name, got [%s] = %s"):format(tostring(name), type(fn)), 3)
        elseif name:sub(1, 1) == "." then
            error("names that begin with a dot are evpt's own: " .. name, 3)
        end
    end
    for name, fn in next, methods do
        into[name] = fn
    end
end

local function add_hook(into, fn)
    if type(fn) ~= "function" then
        error("bad argument: function expected, got " .. type(fn), 3)
    end
    into[#into + 1] = fn
end

-- `from`: who may call them from other nodes; the last export of a method decides.
local function export(world, methods, options)
    restrict({}, options) -- checks them
    add_methods(world.exports, methods)
    for name in next, methods do
        world.from[name] = options and options.from
    end
end

local function recorders(world)
    return {
        ["evpt.export"] = function(methods, options) export(world, methods, options) end,
        ["evpt.methods"] = function(methods) add_methods(world.methods, methods) end,
        ["evpt.on_stop"] = function(fn) add_hook(world.on_stop, fn) end,
        ["evpt.cluster.on_change"] = function(fn) add_hook(world.on_change, fn) end,
    }
end

local function stand_in_module(world, name, real)
    local record = recorders(world)
    local copy = stand_in(world, real, {})
    for key, value in next, real do
        local full = name .. "." .. key
        if type(value) == "table" then -- evpt.log
            local inner = stand_in(world, value, {})
            for inner_key, fn in next, value do
                inner[inner_key] = silent(world, fn)
            end
            copy[key] = inner
        elseif type(value) ~= "function" or HARMLESS[name][key] then
            copy[key] = value
        elseif record[full] then
            copy[key] = stand_in(world, value, record[full])
        else
            copy[key] = not_run(world, value, full)
        end
    end
    return copy
end

-- ---- modules ----

--- The same chunk with variables of its own, `_ENV` above all.
function World.clone(chunk, globals)
    return load(string.dump(chunk), "?", "b", globals)
end

--- The Lua text of a file as a chunk that is named as luaL_loadfile names it: nil and what is wrong.
function World.compile(path, text)
    text = text:gsub("^\xef\xbb\xbf", ""):gsub("^#[^\n]*", "") -- what editors and shells put in front
    return load(text, "@" .. path, "t")
end

-- A module that the service has not loaded yet.
local function load_from_path(world, name)
    local path, tried = package.searchpath(name, world.globals.package.path)
    if not path then
        return nil, tried
    end
    local file = assert(io.open(path, "rb"))
    local text = file:read("a")
    file:close()
    local chunk = assert(World.compile(path, text))
    world.added_chunks[name] = chunk
    debug.setupvalue(chunk, 1, world.globals)
    return chunk, path
end

local function load_from_cpath(world, name)
    local real = world.service.loaded.package
    for i = 4, #real.searchers do -- behind evpt's own, preload and path
        local loader, extra = real.searchers[i](name)
        if type(loader) == "function" then
            return loader, extra
        end
    end
end

-- A module whose chunk is not known: shared with the service, but for what is put into its table.
local function share(world, value)
    if type(value) ~= "table" then
        return value
    end
    local copy = stand_in(world, value, {})
    for key, each in next, value do
        copy[key] = each
    end
    return setmetatable(copy, debug.getmetatable(value))
end

local function find_loader(world, name)
    local service = world.service
    if HARMLESS[name] or name:find("^evpt%.") then
        local real = service.loaded[name] or own_module(name)
        if real then
            local copy = HARMLESS[name] and stand_in_module(world, name, real) or share(world, real)
            return function() return copy end
        end
    end
    if name == world.unit then
        return world.chunk, world.path
    elseif service.chunks[name] then
        local chunk = World.clone(service.chunks[name], world.globals)
        return chunk, debug.getinfo(chunk, "S").source:sub(2)
    elseif service.loaded[name] ~= nil then
        return function() return share(world, service.loaded[name]) end
    end
    local preload = world.globals.package.preload[name]
    if preload then
        return preload, ":preload:"
    end
    local chunk, extra = load_from_path(world, name)
    if chunk then
        return chunk, extra
    end
    local loader, extra_c = load_from_cpath(world, name)
    if not loader then
        error(("module '%s' not found:%s"):format(name, extra), 3)
    end
    return loader, extra_c
end

function World:require(name)
    local loaded = self.loaded
    if loaded[name] == nil then
        local loader, extra = find_loader(self, name)
        local value = loader(name, extra)
        if value ~= nil then
            loaded[name] = value
        elseif loaded[name] == nil then
            loaded[name] = true
        end
        return loaded[name], extra
    end
    return loaded[name]
end

-- Modules that the script does not load itself, but later, from inside a function. One that cannot be loaded without what was there then
-- stays as it is, unless it is the one that is to be updated.
local function require_others(world)
    local names = {}
    for name in next, world.service.chunks do
        if name ~= World.SCRIPT and world.loaded[name] == nil then
            names[#names + 1] = name
        end
    end
    table.sort(names)
    for _, name in ipairs(names) do
        if name == world.unit then
            world:require(name)
        elseif not pcall(world.require, world, name) then
            world.loaded[name] = nil
        end
    end
end

-- Runs fn with a limit, and keeps the locals at the end of the unit's top level: they tell how the script calls things.
local function watch(world, fn)
    local now = own_module("evpt").now
    local until_ms = now() + RUN_MAX_MS
    debug.sethook(function(event)
        if event ~= "return" then
            if now() > until_ms then
                error("stopped, it runs too long (an endless loop?)", 2)
            end
        elseif debug.getinfo(2, "f").func == world.chunk then
            local i = 1
            local name, value = debug.getlocal(2, i)
            while name do
                world.locals[i] = { name, value }
                i = i + 1
                name, value = debug.getlocal(2, i)
            end
        end
    end, "r", RUN_LOOK_EVERY)
    local ok, problem = pcall(fn)
    debug.sethook()
    if not ok then
        error(problem, 0)
    end
end

--- Runs the service's script and modules anew. `service`: its globals, package.loaded and chunks (unit -> function); `unit`: World.SCRIPT or
-- the name of a module: in this world it has the code `chunk` of the file `path`. Raises what the scripts raise.
function World.new(service, unit, chunk, path)
    local world = setmetatable({
        service = service, unit = unit, chunk = chunk, path = path,
        globals = {}, loaded = {}, exports = {}, methods = {}, on_stop = {}, on_change = {},
        from = {},         -- method -> patterns of the nodes that may call it; nil: all may
        live = {},         -- what the service has -> by what this world has in its place
        tokens = {},       -- token -> name of the function
        not_run = {},      -- name of a function -> how often it was called
        given = {},        -- functions given to these, by the place where they were
        locals = {},       -- { name, value } of the unit's top level at its end
        added_chunks = {}, -- module -> chunk, of those that the service has not loaded
    }, { __index = World })
    world.live[world.globals], world.live[world.loaded] = service.globals, service.loaded
    copy_libraries(world)
    set_globals(world)
    debug.setupvalue(chunk, 1, world.globals)
    local script = unit == World.SCRIPT and chunk or World.clone(service.chunks[World.SCRIPT], world.globals)
    watch(world, function()
        script()
        require_others(world)
    end)
    return world
end

return World
