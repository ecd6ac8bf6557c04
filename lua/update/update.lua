-- Code update, inside the service that is updated: what `.update` runs (life_update in lua/api_life.c). It is one message, and nothing in it
-- can wait, so no other message is handled and no coroutine goes on meanwhile.
--
-- The script's top level, or that of a module, runs twice in worlds of its own (world.lua): with the code that the service has, the base, and
-- with the new code. Then three things are compared, starting from what can be reached by a name (exports, globals, modules, hooks): what the
-- service has at some place, what the base has there, what the new world has there.
--
--   service   base      new
--   f         f         g          the function of this place: g takes its place, here and wherever else the service has f
--   state     anything  anything   the service has changed it: state, which stays
--   -         -         g          something new: is put there
--   f         f         -          is taken away, if it is a field of a table
--
-- A variable of g is that of f with the same name: g is joined to it (debug.upvaluejoin). So all functions, old and new, go on to share their
-- variables, whatever these hold by now. What a coroutine is in the middle of it finishes in the old code, for the stacks are left alone; each
-- call that it makes from then on finds the new functions.
--
-- Everything up to `commit` only looks. `commit` does what has been prepared, and undoes it where memory is refused in the middle.
local debug, registry, refs, part, own_module, walk, restrict, unit, path, text, dry_run = ...
local bytecode = part("update.bytecode")()
local World = part("update.world")(debug, own_module, restrict)
local naming = part("update.names")(debug)

-- ---- functions and their code ----

local dumps = {} -- function -> its dump

local function is_lua(fn)
    return debug.getinfo(fn, "S").what ~= "C"
end

local function dump_of(fn)
    local dump = dumps[fn]
    if not dump then
        dump = string.dump(fn)
        dumps[fn] = dump
    end
    return dump
end

-- Do both come from the same place of the same file? (So do closures of which a loop has made several.)
local function is_same(one, other)
    if one == other then
        return true
    end
    return type(one) == "function" and type(other) == "function" and is_lua(one) and is_lua(other) and dump_of(one) == dump_of(other)
end

-- ---- what is found out ----

local live = { globals = registry[2], loaded = registry._LOADED, chunks = registry[refs.chunks] } -- 2: LUA_RIDX_GLOBALS
local old_chunk = live.chunks[unit]
local old_source = debug.getinfo(old_chunk, "S").source -- `path` may find the file in another folder by now
local base, new         -- worlds

local counterpart       -- object of the new world -> the one of the service that it stands for; itself, where it is installed
local matched = {}      -- function of the service -> the one of the new world that has its place
local replaced = {}     -- function of the service -> the one that is installed for it, where they differ
local installed = {}    -- functions of the new world
local fresh = {}        -- tables of the new world that are installed as they are
local seen = {}         -- tables of the new world that have been compared
local cells = {}        -- variable of the new world (its upvalueid) -> { function, index } where the service has it; false: it is new
local names = {}        -- object of a world -> how it is called
local top_level = {}    -- names of variables at the top level that can be told by their names: { name = true }
local variables = {}    -- such a name -> { function of the service, function of the base, index }
local added = {}        -- { slot, value, name } of what nothing in the service corresponds to
local unresolved = {}   -- { function of the new world, index, name of the variable, name of the function }
local gone = {}         -- { function or table of the service, of the base, name } that nothing uses any more, as far as is known yet
local slots = {}        -- { slot, value }: what is put into single places
local rules = {}        -- exported method -> { who may call it, who may now }, as lists of patterns, where that changes
local hooks = {}        -- place in the registry -> list of hooks, where it becomes longer or shorter
local report = { added = {}, changed = {}, unchanged = {}, removed = {}, kept = {}, missing = {}, not_run = {} }

-- Does it come from the file that is updated?
local function is_own(fn)
    local source = debug.getinfo(fn, "S").source
    return source == old_source or source == "@" .. path
end

local function note(list, name, fn)
    if is_own(fn) then
        list[#list + 1] = name
    end
end

local field_name = naming.field
-- A slot is a place that holds a value: { t = table, key = }, or a variable: { fn = function, index = }.
local META = {} -- as a key: the table's metatable

local function put(slot, value)
    slots[#slots + 1] = { slot, value }
end

local function refuse(name, is, becomes)
    error(("%s is a %s in the running service and a %s in the new code: an update keeps state"):format(name, is, becomes), 0)
end

-- ---- comparing ----

local visit

-- Variables that can be told by their names, whoever uses them.
local function collect_variables(l, b)
    for i = 1, is_own(l) and debug.getinfo(l, "u").nups or 0 do
        local name = debug.getupvalue(l, i)
        if top_level[name] and not variables[name] then
            variables[name] = { l, b, i }
        end
    end
end

local function value_of(fn, i)
    local _, value = debug.getupvalue(fn, i)
    return value
end

local function variable_name(fn, variable, name)
    return is_own(fn) and top_level[variable] and variable or name .. "/" .. variable
end

local function is_plain(value)
    return type(value) ~= "table" and type(value) ~= "function"
end

-- Variable i of n is variable j of l. One that is <const>, and no table, is code and not state: unless what the base makes of it now is not what
-- the service has, the time of its start for instance.
local function share_variable(l, b, j, n, i, name)
    local slot, l_value, b_value, n_value = { fn = l, index = j }, value_of(l, j), value_of(b, j), value_of(n, i)
    cells[debug.upvalueid(n, i)] = { l, j }
    if l_value == b_value and n_value ~= l_value and is_plain(l_value) and is_plain(n_value)
        and bytecode.is_const(dump_of(n), i) then
        put(slot, n_value)
        report.changed[#report.changed + 1] = name
    else
        visit(slot, l_value, b_value, n_value, name)
    end
end

-- l and b are what a variable or field was that the new code does not use. True, if it is a function.
local function see_off(l, b, name)
    local is_function = type(l) == "function" and is_lua(l) and is_same(l, b)
    if is_function or type(l) == "table" and type(b) == "table" and l ~= b then
        gone[#gone + 1] = { l, b, names[b] or name }
    end
    return is_function
end

-- n takes the place of l: the variables that both have are one. The rest is looked at when all that have counterparts are known.
local function join_variables(l, b, n, name)
    local place = {}
    for j = 1, debug.getinfo(l, "u").nups do
        place[debug.getupvalue(l, j)] = j
    end
    collect_variables(l, b)
    for i = 1, debug.getinfo(n, "u").nups do
        local variable = debug.getupvalue(n, i)
        local j, id = place[variable], debug.upvalueid(n, i)
        place[variable] = nil
        if not j then
            unresolved[#unresolved + 1] = { n, i, variable, name }
        elseif not cells[id] then
            share_variable(l, b, j, n, i, variable_name(n, variable, name))
        elseif variable ~= "_ENV" and debug.upvalueid(l, j) ~= debug.upvalueid(table.unpack(cells[id])) then
            error(("%s: variable %s is one in the new code and two in the running service"):format(name, variable), 0)
        end
    end
    for variable, j in next, place do
        see_off(value_of(l, j), value_of(b, j), variable)
    end
end

-- l and b are the same function, and n is found at their place.
local function match_functions(slot, l, b, n, name)
    local before = matched[l]
    name = names[n] or name
    if before and before ~= n then -- l was at two places where the new code has two functions
        put(slot, n)
        if not counterpart[n] then
            counterpart[n], installed[#installed + 1] = n, n
            note(report.added, name, n)
            join_variables(l, b, n, name)
        end
        return
    end
    if before or counterpart[n] then -- a second place of the same, or one function where there were two
        matched[l] = n
        replaced[l] = counterpart[n] ~= l and counterpart[n] or nil
        return
    end
    matched[l] = n
    if dump_of(l) == dump_of(n) then
        counterpart[n] = l
    else -- also where only its line is another: tracebacks are to be right
        counterpart[n], replaced[l], installed[#installed + 1] = n, n, n
    end
    note(bytecode.code(dump_of(l)) == bytecode.code(dump_of(n)) and report.unchanged or report.changed, name, n)
    join_variables(l, b, n, name)
end

local function match_tables(l, b, n, name)
    if seen[n] then
        return
    end
    seen[n], counterpart[n] = true, l
    name = names[n] or name
    b = type(b) == "table" and b or {}
    for key, value in next, n do
        local l_value, b_value = rawget(l, key), rawget(b, key)
        -- of what is not there yet, data at integer keys is left out: a list that the program works on must not get holes
        if type(key) == "string" or l_value ~= nil or type(value) == "function" and type(key) == "number" then
            visit({ t = l, key = key }, l_value, b_value, value, field_name(name, key))
        end
    end
    for key, value in next, b do
        if rawget(n, key) == nil then
            visit({ t = l, key = key }, rawget(l, key), value, nil, field_name(name, key))
        end
    end
    local meta, b_meta = debug.getmetatable(n), debug.getmetatable(b)
    local l_meta = debug.getmetatable(l)
    if meta and l_meta and meta ~= l_meta then
        match_tables(l_meta, b_meta, meta, ("metatable of %s"):format(name))
    elseif meta and not b_meta and not l_meta then
        added[#added + 1] = { { t = l, key = META }, meta, ("metatable of %s"):format(name) }
    end
end

-- The new code has nothing where the old one had b.
local function take_away(slot, l, b, name)
    if slot.t and see_off(l, b, name) then
        put(slot, nil)
        note(report.removed, name, l)
    end
end

local function show(value)
    return type(value) == "string" and ("%q"):format(value:sub(1, 40)):gsub("\\\n", "\\n") or tostring(value)
end

local function visit_function(slot, l, b, n, name)
    if type(l) ~= "function" then
        refuse(name, type(l), "function")
    elseif not is_same(l, b) and base.live[b] ~= l then
        return -- the service has put another one there
    elseif is_lua(l) and is_lua(n) and not new.live[n] then
        match_functions(slot, l, b, n, name)
    elseif (new.live[n] or n) ~= l then -- a function in C, or of evpt, has become one of the script's, or the other way round
        added[#added + 1] = { slot, n, name }
    end
end

local function visit_plain(l, b, n, name)
    local kind, b_kind = type(l), type(b)
    if (kind == "table" or kind == "function") and b_kind == kind then
        refuse(name, kind, type(n))
    elseif n ~= l and n ~= b and b ~= nil and type(n) ~= "userdata" and type(n) ~= "thread" then
        report.kept[#report.kept + 1] = ("%s = %s (%s in the new code)"):format(name, show(l), show(n))
    end
end

-- Compares what service, base and new world have at a place.
function visit(slot, l, b, n, name)
    if base.tokens[b] then
        b = nil
    end
    if n == l then
        return -- a value, or a part of a module that is shared
    elseif n == nil then
        take_away(slot, l, b, name)
    elseif not l and not b then
        added[#added + 1] = { slot, n, name }
    elseif not l or new.tokens[n] then
        return -- state
    elseif type(n) == "function" then
        visit_function(slot, l, b, n, name)
    elseif type(n) == "table" then
        if type(l) ~= "table" then
            refuse(name, type(l), "table")
        end
        match_tables(l, b, n, name)
    else
        visit_plain(l, b, n, name)
    end
end

-- ---- what has no counterpart ----

local resolve

-- A value of the new world that is installed as it is, with all that it leads to.
local function descend(value, name)
    local kind = type(value)
    if kind ~= "table" and kind ~= "function" or counterpart[value] or new.tokens[value] then
        return
    end
    counterpart[value] = value
    name = names[value] or name
    if kind == "table" then
        fresh[#fresh + 1] = value
        for key, each in next, value do
            descend(key, name)
            descend(each, field_name(name, key))
        end
        descend(debug.getmetatable(value), name)
    else
        installed[#installed + 1] = value
        note(report.added, name, value)
        for i = 1, debug.getinfo(value, "u").nups do
            resolve(value, i, debug.getupvalue(value, i), name)
        end
    end
end

-- A variable of a function that is installed; the function in whose place it comes, if any, had none of that name.
function resolve(n, i, variable, name)
    local id = debug.upvalueid(n, i)
    if cells[id] ~= nil then
        return
    end
    local known = is_own(n) and variables[variable]
    if known then
        local l, b, j = table.unpack(known)
        share_variable(l, b, j, n, i, variable)
    else
        cells[id] = false
        descend(value_of(n, i), variable_name(n, variable, name))
    end
end

local function follow_function(l, b)
    collect_variables(l, b)
    for i = 1, debug.getinfo(l, "u").nups do
        see_off(value_of(l, i), value_of(b, i), (debug.getupvalue(l, i)))
    end
end

local function follow_table(l, b, name)
    for key, value in next, b do
        see_off(rawget(l, key), value, field_name(name, key))
    end
    see_off(debug.getmetatable(l), debug.getmetatable(b), name)
end

-- Functions that are not used any more may be the only ones that have a variable which new ones use.
local function follow_gone()
    local done = {}
    local i = 1
    while gone[i] do
        local l, b, name = table.unpack(gone[i])
        if not done[b] then
            done[b] = true
            local follow = type(l) == "function" and follow_function or follow_table
            follow(l, b, name)
        end
        i = i + 1
    end
end

local function settle_rest()
    follow_gone()
    while #unresolved > 0 or #added > 0 do
        if #unresolved > 0 then
            resolve(table.unpack(table.remove(unresolved)))
        else
            local slot, value, name = table.unpack(table.remove(added))
            if type(value) == "function" and counterpart[value] and slot.t then -- one more name for what there is
                note(report.added, name, value)
            end
            put(slot, value)
            descend(value, name)
        end
    end
    for _, each in ipairs(gone) do
        if type(each[1]) == "function" and not matched[each[1]] then
            note(report.removed, each[3], each[1])
        end
    end
end

-- ---- from the new world into the service ----

local function translate(value)
    local kind = type(value)
    if kind == "thread" then
        error("a coroutine that the new code makes at its top level cannot be brought into a running service", 0)
    elseif new.tokens[value] then
        error(("the new code needs at its top level what %s returns, which an update does not run"):format(new.tokens[value]), 0)
    end
    return counterpart[value] or value
end

local function translate_table(t)
    local keys = {}
    for key, value in next, t do
        rawset(t, key, translate(value))
        if translate(key) ~= key then
            keys[#keys + 1] = key
        end
    end
    for _, key in ipairs(keys) do
        local value = rawget(t, key)
        rawset(t, key, nil)
        rawset(t, translate(key), value)
    end
    debug.setmetatable(t, translate(debug.getmetatable(t)))
end

local function translate_variables(fn)
    for i = 1, debug.getinfo(fn, "u").nups do
        local place = cells[debug.upvalueid(fn, i)]
        if place then
            debug.upvaluejoin(fn, i, place[1], place[2])
        else
            debug.setupvalue(fn, i, translate(value_of(fn, i)))
        end
    end
end

-- What commit does, in its order: { container, key, value }. A function as the container: its variable.
local changes = {}

local function change(container, key, value)
    changes[#changes + 1] = { container, key, value }
end

local function prepare()
    for _, t in ipairs(fresh) do
        translate_table(t)
    end
    for _, fn in ipairs(installed) do
        translate_variables(fn)
    end
    local places = next(replaced) and not dry_run and walk(replaced) or {}
    for i = 1, #places, 3 do
        change(places[i], places[i + 1], replaced[places[i + 2]])
    end
    for _, each in ipairs(slots) do
        local slot = each[1]
        change(slot.t or slot.fn, slot.key or slot.index, translate(each[2]))
    end
    for ref, list in next, hooks do
        for i, fn in ipairs(list) do
            list[i] = replaced[fn] or fn
        end
        change(registry, ref, list)
    end
    for name, chunk in next, new.added_chunks do
        debug.setupvalue(chunk, 1, live.globals)
        change(live.chunks, name, chunk)
    end
    if dump_of(new.chunk) ~= dump_of(old_chunk) then -- else the one that is there shares more with what runs
        debug.setupvalue(new.chunk, 1, live.globals)
        change(live.chunks, unit, new.chunk)
    end
end

-- Puts a value into its place, and returns what was there. Allocates nothing where there was something.
local function exchange(container, key, value)
    local before
    if key == META then
        before = debug.getmetatable(container)
        debug.setmetatable(container, value)
    elseif type(container) == "function" then
        before = value_of(container, key)
        debug.setupvalue(container, key, value)
    else
        before = rawget(container, key)
        rawset(container, key, value)
    end
    return before
end

-- which: 1: who might call; 2: who may now.
local function set_rules(which)
    for name, rule in next, rules do
        local from = rule[which]
        restrict({ [name] = true }, from and { from = from })
    end
end

local function commit()
    local done = 0
    local ok, problem = pcall(function()
        set_rules(2) -- first: no call comes in between
        for i, each in ipairs(changes) do
            each[3] = exchange(each[1], each[2], each[3])
            done = i
        end
    end)
    if not ok then
        for i = done, 1, -1 do
            exchange(table.unpack(changes[i], 1, 3))
        end
        set_rules(1)
        error(problem, 0)
    end
end

-- ---- where the comparison starts ----

local function match_registered(ref, b, n)
    if registry[ref] then
        match_tables(registry[ref], b, n, "")
    elseif next(n) then
        added[#added + 1] = { { t = registry, key = ref }, n, "" }
    end
end

-- Who may call a method that is exported is the file's affair, and is changed where the file has changed it.
local function match_rules()
    for name in next, new.exports do
        local before, now = base.from[name], new.from[name]
        local same = table.concat(before or {}, " ") == table.concat(now or {}, " ")
        if not base.exports[name] or not same then
            rules[name] = { before, now }
        end
        if base.exports[name] and not same then
            report.changed[#report.changed + 1] = name
        end
    end
end

-- A list of hooks: those of the base are found in that of the service by their code, and correspond to the new ones by their order.
local function match_hooks(ref, b_list, n_list, name)
    local list, taken, result = registry[ref] or {}, {}, {}
    for i, b in ipairs(b_list) do
        for j, l in ipairs(list) do
            if taken[j] == nil and is_same(l, b) then
                taken[j] = n_list[i] or false
                visit({ t = list, key = j }, l, b, n_list[i], field_name(name, i))
                break
            end
        end
    end
    for j, l in ipairs(list) do
        if taken[j] ~= false then
            result[#result + 1] = l
        end
    end
    for i = #b_list + 1, #n_list do
        result[#result + 1] = n_list[i]
        added[#added + 1] = { { t = result, key = #result }, n_list[i], field_name(name, i) }
    end
    if #result ~= #list then
        hooks[ref] = result
    end
end

-- What was given to timers and forks is found by its code, wherever it is by now, if there is only one of it.
local function match_given()
    if not next(base.given) then
        return
    end
    local by_dump = {}
    for _, fn in ipairs(walk(nil, old_source)) do
        if not matched[fn] then
            by_dump[dump_of(fn)] = by_dump[dump_of(fn)] == nil and fn or false
        end
    end
    for name, b in next, base.given do
        local l, n = by_dump[dump_of(b)], new.given[name]
        if l and n and not matched[l] then
            match_functions(nil, l, b, n, name)
        end
    end
end

local function compare()
    local old_names = bytecode.top_level(dump_of(old_chunk))
    for name in next, bytecode.top_level(dump_of(new.chunk)) do
        top_level[name] = old_names[name]
    end
    for _, world in ipairs { base, new } do
        naming.add(names, world)
    end
    match_registered(refs.exports, base.exports, new.exports)
    match_rules()
    match_registered(refs.methods, base.methods, new.methods)
    match_tables(live.globals, base.globals, new.globals, "")
    match_tables(live.loaded, base.loaded, new.loaded, "")
    match_tables(debug.getmetatable(""), base.string_metatable, new.string_metatable, "metatable of strings")
    match_hooks(refs.stop_hooks, base.on_stop, new.on_stop, "on_stop")
    match_hooks(refs.status_handlers, base.on_change, new.on_change, "on_change")
    match_given()
    settle_rest()
end

-- ---- what is told ----

-- Globals that the new code reads, and the old one did not, and that nobody has set.
local function find_missing()
    local names, set_names = bytecode.globals(dump_of(new.chunk))
    local old_names = bytecode.globals(dump_of(old_chunk))
    for name, line in next, names do
        if not old_names[name] and not set_names[name] and rawget(live.globals, name) == nil and rawget(new.globals, name) == nil then
            report.missing[#report.missing + 1] = ("%s (%s:%d)"):format(name, path, line)
        end
    end
end

-- What the new code does more of at its top level than the old one did.
local function find_not_run()
    for name, count in next, new.not_run do
        if count > (base.not_run[name] or 0) then
            report.not_run[#report.not_run + 1] = name
        end
    end
end

local function sort_report()
    for key, list in next, report do
        local names, known = {}, {}
        table.sort(list)
        for _, name in ipairs(list) do
            names[#names + 1] = not known[name] and name or nil
            known[name] = true
        end
        report[key] = names
    end
end

-- ---- all together ----

local function plan()
    local chunk, problem = World.compile(path, text)
    if not chunk then
        error(problem, 0)
    end
    local ok
    ok, base = pcall(World.new, live, unit, World.clone(old_chunk), path)
    if not ok then
        error(("the code that runs, run once more to compare, failed: %s"):format(tostring(base)), 0)
    end
    new = World.new(live, unit, chunk, path)
    counterpart = new.live
    compare()
    prepare()
    find_missing()
    find_not_run()
    sort_report()
end

local function subscribe()
    local evpt = own_module("evpt")
    if hooks[refs.status_handlers] then
        evpt.send("clusterclient", "subscribe", evpt.self())
    end
end

local ok, problem = pcall(function()
    plan()
    if not dry_run then
        commit()
        subscribe()
    end
end)
if not ok then
    return nil, (tostring(problem):gsub("\n.*", ""))
end
return report
