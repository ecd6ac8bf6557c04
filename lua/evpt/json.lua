-- JSON for the console: an encoder, and nothing else. Keys are sorted, so that equal values give equal texts.
local json = {}

local escapes = { ['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n", ["\t"] = "\\t", ["\r"] = "\\r" }

local function quote(text)
    return '"' .. text:gsub('[%c"\\\127]', function(c)
        return escapes[c] or ("\\u%04x"):format(c:byte())
    end) .. '"'
end

local encode

local function encode_object(value)
    local keys, parts = {}, {}
    for key in pairs(value) do
        keys[#keys + 1] = key
    end
    table.sort(keys, function(a, b)
        return tostring(a) < tostring(b)
    end)
    for _, key in ipairs(keys) do
        parts[#parts + 1] = quote(tostring(key)) .. ":" .. encode(value[key])
    end
    return "{" .. table.concat(parts, ",") .. "}"
end

function encode(value)
    local kind = type(value)
    if kind == "table" then
        if getmetatable(value) == json.object or (#value == 0 and next(value) ~= nil) then
            return encode_object(value)
        end
        local parts = {}
        for i, each in ipairs(value) do
            parts[i] = encode(each)
        end
        return "[" .. table.concat(parts, ",") .. "]"
    elseif kind == "string" then
        return quote(value)
    elseif kind == "number" then
        if value ~= value or value == math.huge or value == -math.huge then
            return "null" -- JSON has no such numbers
        end
        return math.type(value) == "integer" and ("%d"):format(value) or ("%.17g"):format(value)
    elseif kind == "nil" then
        return "null"
    end
    return tostring(value)
end

--- Metatable of tables that are objects even when they are empty.
json.object = {}
json.encode = encode
return json
