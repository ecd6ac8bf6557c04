-- How the functions and tables of a world are called in what an update reports: as the script calls them, as far as that can be seen. What is
-- exported or global goes by that name, then locals of the top level by theirs, and the rest by the way to it: `Room.join`, `rules[2]`.
local debug = ...
local names = {}

function names.field(name, key)
    if type(key) ~= "string" then
        return ("%s[%s]"):format(name, tostring(key))
    end
    return name == "" and key or name .. "." .. key
end

-- Calls each(value, kind, key, holder) for what a table or function leads to.
local function for_inside(object, each)
    if type(object) == "table" then
        for key, value in next, object do
            each(value, "field", key)
        end
        each(debug.getmetatable(object), "metatable")
        return
    end
    for i = 1, debug.getinfo(object, "u").nups do
        local variable, value = debug.getupvalue(object, i)
        each(value, "variable", variable)
    end
end

--- Adds to `known` what the objects of a world are called.
function names.add(known, world)
    local queue = {}
    local function name(value, text)
        local is_own = type(value) == "table" and not world.tokens[value] or type(value) == "function" and not world.live[value]
        if is_own and not known[value] then
            known[value] = text
            queue[#queue + 1] = value
        end
    end
    local function name_fields(of, prefix)
        for key, value in next, of do
            name(value, names.field(prefix, key))
        end
    end
    known[world.globals], known[world.loaded] = "", ""
    name_fields(world.exports, "")
    name_fields(world.methods, "")
    name_fields(world.globals, "")
    for _, variable in ipairs(world.locals) do
        if variable[1]:find("^[%a_]") then -- no temporary
            name(variable[2], variable[1])
        end
    end
    name_fields(world.given, "")
    name_fields(world.loaded, "")
    name_fields(world.on_stop, "on_stop")
    name_fields(world.on_change, "on_change")
    name(world.string_metatable, "metatable of strings")
    local i = 1
    while queue[i] do -- nearer ones first
        local holder = known[queue[i]]
        for_inside(queue[i], function(value, kind, key)
            name(value, kind == "field" and names.field(holder, key) or kind == "variable" and holder .. "/" .. key
                or "metatable of " .. holder)
        end)
        i = i + 1
    end
end

return names
