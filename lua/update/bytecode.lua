-- Reads what string.dump writes, as far as an update needs it: is this the same code as that, apart from where it stands in the file; which
-- locals does a chunk have at its top level; which globals does it read. The format is that of Lua 5.4. Of a dump in another one nothing is
-- known: then every function counts as changed, and no name as missing.
local bytecode = {}

-- Signature, version, format, a check for broken line ends, the sizes of instructions, integers and floats, one of each as a sample; then
-- a byte, the number of upvalues.
local HEADER = "\27Lua\x54\0\x19\x93\r\n\x1a\n\4\8\8" .. ("<i8d"):pack(0x5678, 370.5)
local FUNCTION_AT = #HEADER + 2
local INSTRUCTION = 4 -- bytes
local GETTABUP, SETTABUP = 11, 15 -- opcodes
local CONST = 1 -- kind of a variable: <const>
local FLOAT, INTEGER, SHORT_STRING, LONG_STRING = 0x13, 0x03, 0x04, 0x14 -- constants that bytes follow

-- Seven bits a byte, the most significant first; the last one has its top bit set.
local function read_size(dump, at)
    local size = 0
    while true do
        local byte = dump:byte(at)
        at = at + 1
        size = size << 7 | byte & 0x7f
        if byte >= 0x80 then
            return size, at
        end
    end
end

local function read_text(dump, at)
    local size
    size, at = read_size(dump, at)
    if size == 0 then
        return nil, at
    end
    return dump:sub(at, at + size - 2), at + size - 1
end

local function read_constants(dump, at)
    local count
    count, at = read_size(dump, at)
    local constants = {}
    for i = 0, count - 1 do
        local kind = dump:byte(at)
        at = at + 1
        if kind == FLOAT or kind == INTEGER then
            at = at + 8
        elseif kind == SHORT_STRING or kind == LONG_STRING then
            constants[i], at = read_text(dump, at)
        end
    end
    return constants, at
end

-- Skips the lines of the instructions; then the locals and the names of the upvalues.
local function read_debug(dump, at, proto)
    local count
    count, at = read_size(dump, at)
    at = at + count
    count, at = read_size(dump, at)
    for _ = 1, 2 * count do
        _, at = read_size(dump, at)
    end
    count, at = read_size(dump, at)
    for i = 1, count do
        local variable = {}
        variable.name, at = read_text(dump, at)
        _, at = read_size(dump, at)
        variable.to, at = read_size(dump, at)
        proto.locals[i] = variable
    end
    count, at = read_size(dump, at)
    for i = 1, count do
        proto.upvalues[i], at = read_text(dump, at)
    end
    return at
end

-- `same` collects what makes the code what it is: everything but names and lines. Where the outermost function takes its upvalues from is left
-- out as well: one more local above it moves that.
local function read_function(dump, at, same, is_inner)
    local proto = { locals = {}, upvalues = {}, kinds = {}, protos = {} }
    local count, from
    _, at = read_text(dump, at) -- source
    proto.line, at = read_size(dump, at)
    _, at = read_size(dump, at) -- its last line
    from, at = at, at + 3 -- parameters, whether there are more, size of the stack
    proto.code_size, at = read_size(dump, at)
    proto.code_at, at = at, at + proto.code_size * INSTRUCTION
    proto.constants, at = read_constants(dump, at)
    same[#same + 1] = dump:sub(from, at - 1)
    count, at = read_size(dump, at)
    same[#same + 1] = is_inner and dump:sub(at, at + 3 * count - 1) or nil
    for i = 1, count do
        proto.kinds[i] = dump:byte(at + 2) -- behind where it is taken from
        at = at + 3
    end
    count, at = read_size(dump, at)
    for i = 1, count do
        proto.protos[i], at = read_function(dump, at, same, true)
    end
    return proto, read_debug(dump, at, proto)
end

local function read(dump)
    local same = {}
    if dump:sub(1, #HEADER) ~= HEADER then
        return nil
    end
    return read_function(dump, FUNCTION_AT, same), same
end

--- A text that is equal for functions with the same code, wherever they stand.
function bytecode.code(dump)
    local proto, same = read(dump)
    return proto and table.concat(same) .. table.concat(proto.upvalues, "\0") or dump
end

--- Is a function's variable one that no code can assign to?
function bytecode.is_const(dump, i)
    local proto = read(dump)
    return proto and proto.kinds[i] == CONST
end

local function count_locals(proto, count)
    for _, variable in ipairs(proto.locals) do
        count[variable.name] = (count[variable.name] or 0) + 1
    end
    for _, inner in ipairs(proto.protos) do
        count_locals(inner, count)
    end
end

--- {name = true} of the locals at the top level of a chunk whose name occurs nowhere else in it: a variable of that name, in whatever function,
-- is this one.
function bytecode.top_level(dump)
    local proto = read(dump)
    local count, names = {}, {}
    if proto then
        count_locals(proto, count)
        for _, variable in ipairs(proto.locals) do
            local to_the_end = variable.to == proto.code_size -- that of a block ends earlier
            names[variable.name] = to_the_end and count[variable.name] == 1 or nil
        end
    end
    return names
end

local function find_globals(dump, proto, read_names, set_names)
    for i = 0, proto.code_size - 1 do
        local instruction = ("<I4"):unpack(dump, proto.code_at + i * INSTRUCTION)
        local operation = instruction & 0x7f
        local a, b, c = instruction >> 7 & 0xff, instruction >> 16 & 0xff, instruction >> 24
        if operation == GETTABUP and proto.upvalues[b + 1] == "_ENV" then
            local name = proto.constants[c]
            read_names[name] = read_names[name] or proto.line
        elseif operation == SETTABUP and proto.upvalues[a + 1] == "_ENV" then
            set_names[proto.constants[b]] = true
        end
    end
    for _, inner in ipairs(proto.protos) do
        find_globals(dump, inner, read_names, set_names)
    end
end

--- Globals of a chunk: {name = line of the first function that reads it}, {name = true} of those that it sets somewhere.
function bytecode.globals(dump)
    local read_names, set_names = {}, {}
    local proto = read(dump)
    if proto then
        find_globals(dump, proto, read_names, set_names)
    end
    return read_names, set_names
end

return bytecode
