-- console: the verbs of evpt-ctl. A verb gets its arguments as strings and, last, the options ({json = bool}); it returns a value, which is
-- shown as JSON or by its own formatter, or raises a text.
local evpt = require "evpt"
local cluster = require "evpt.cluster"
local builtin = require "evpt.builtin"
local json = require "evpt.json"

local control = builtin.control()

-- ---- showing ----

-- Rows of cells as columns; numbers to the right.
local function columns(header, rows)
    local widths, lines = {}, {}
    table.insert(rows, 1, header)
    for _, row in ipairs(rows) do
        for i, cell in ipairs(row) do
            widths[i] = math.max(widths[i] or 0, #tostring(cell))
        end
    end
    for _, row in ipairs(rows) do
        local cells = {}
        for i, cell in ipairs(row) do
            local pad = (" "):rep(widths[i] - #tostring(cell))
            cells[i] = math.type(rows[2] and rows[2][i]) and pad .. tostring(cell) or tostring(cell) .. pad
        end
        lines[#lines + 1] = (table.concat(cells, "  "):gsub("%s+$", ""))
    end
    return table.concat(lines, "\n")
end

local function sorted_keys(t)
    local keys = {}
    for key in pairs(t) do
        keys[#keys + 1] = key
    end
    table.sort(keys)
    return keys
end

-- ---- verbs ----

local verbs = {}

local function address_parts(address)
    local ip, port = address:match("^%[?(.-)%]?:(%d+)$")
    return ip, math.tointeger(tonumber(port))
end

verbs.nodes = {
    help = "the nodes: address, status, calls in flight (session2context), requests waiting (requestCache), bytes queued",
    run = function()
        local nodes = evpt.call(control, "nodes")
        local list = {}
        for _, name in ipairs(sorted_keys(nodes)) do
            local node = nodes[name]
            node.name = name
            if node.status ~= "down" then
                node.ip, node.port = address_parts(node.address)
            end
            list[#list + 1] = node
        end
        return list
    end,
    show = function(list)
        local rows = {}
        for _, node in ipairs(list) do
            rows[#rows + 1] = { node.name, node.ip and node.address or "-", node.name == evpt.node() and "self" or node.status,
                node.session2context, node.requestCache, node.queued, node.round_trip_us, node.connects }
        end
        return columns({ "NODE", "ADDRESS", "STATUS", "IN_FLIGHT", "CACHED", "QUEUED_BYTES", "RTT_US", "CONNECTS" }, rows)
    end,
}

verbs.services = {
    help = "the services of this node",
    run = function()
        return builtin.services()
    end,
    show = function(list)
        local rows = {}
        for _, service in ipairs(list) do
            if not service.pinned then
                rows[#rows + 1] = { service.handle, service.name ~= "" and service.name or "-", service.mailbox,
                    service.messages, service.run_us, service.refused }
            end
        end
        return columns({ "HANDLE", "NAME", "MAILBOX", "MESSAGES", "RUN_US", "REFUSED" }, rows)
    end,
}

verbs.stat = {
    help = "counters of this node",
    run = function()
        return evpt.call(control, "stat")
    end,
    show = function(stats)
        local rows = {}
        for _, key in ipairs(sorted_keys(stats)) do
            rows[#rows + 1] = { key, stats[key] }
        end
        return columns({ "COUNTER", "VALUE" }, rows)
    end,
}

local function show_diff(diff)
    local lines = {}
    for _, key in ipairs { "added", "removed", "changed" } do
        table.sort(diff[key])
        lines[#lines + 1] = ("%s: %s"):format(key, #diff[key] > 0 and table.concat(diff[key], " ") or "-")
    end
    return table.concat(lines, "\n")
end

verbs.reload = { help = "reads the node list anew", run = cluster.reload, show = show_diff }

verbs.rewrite = {
    help = "replaces the node list's file by FILE, then reads it",
    arguments = 1,
    run = cluster.rewrite,
    show = show_diff,
}

local function show_update(result)
    local lines, shown = {}, {}
    for _, report in ipairs(result.services) do
        local text = {}
        for _, what in ipairs { "changed", "added", "removed", "unchanged", "kept", "missing", "not_run" } do
            if #report[what] > 0 then
                text[#text + 1] = ("  %-9s %s"):format(what, table.concat(report[what], what == "kept" and "; " or " "))
            end
        end
        text = table.concat(text, "\n")
        if not shown[text] then -- services that run the same script differ seldom
            shown[text] = { text = text, names = {} }
            lines[#lines + 1] = shown[text]
        end
        table.insert(shown[text].names, report.name)
    end
    for i, each in ipairs(lines) do
        lines[i] = ("%s %s: %s\n%s"):format(result.file, result.dry_run and "could be updated in" or "updated in",
            table.concat(each.names, " "), each.text)
    end
    return table.concat(lines, "\n")
end

verbs.update = {
    help = "puts the code of SCRIPT, SERVICE or MODULE in place of what runs; --dry-run only looks",
    arguments = 1,
    optional = 1,
    run = function(name, dry_run)
        if dry_run and dry_run ~= "--dry-run" then
            error(("update: unknown option %q, expected --dry-run"):format(dry_run), 0)
        end
        local ok, result = evpt.call("launcher", "update", name, dry_run ~= nil)
        return ok and result or error(result, 0)
    end,
    show = show_update,
}

verbs.stop = {
    help = "drains and stops the node",
    run = function()
        builtin.tell_main("stop")
        return { stopping = true }
    end,
    show = function()
        return "stopping"
    end,
}

verbs.help = {
    help = "this list",
    run = function()
        local list = {}
        for name, verb in pairs(verbs) do
            list[name] = verb.help
        end
        return list
    end,
    show = function(list)
        local lines = {}
        for _, name in ipairs(sorted_keys(list)) do
            lines[#lines + 1] = ("%-10s %s"):format(name, list[name])
        end
        return table.concat(lines, "\n")
    end,
}

-- ---- unknown verbs ----

-- Number of single-letter changes from a to b (Levenshtein).
local function distance(a, b)
    local row = {}
    for j = 0, #b do
        row[j] = j
    end
    for i = 1, #a do
        local before = row[0]
        row[0] = i
        for j = 1, #b do
            local cost = before + (a:byte(i) == b:byte(j) and 0 or 1)
            before = row[j]
            row[j] = math.min(cost, row[j] + 1, row[j - 1] + 1)
        end
    end
    return row[#b]
end

local function nearest(name)
    local best, best_distance
    for _, verb in ipairs(sorted_keys(verbs)) do
        local d = distance(name, verb)
        if not best or d < best_distance then
            best, best_distance = verb, d
        end
    end
    return best_distance <= 3 and (", did you mean %s?"):format(best) or ", see: evpt-ctl help"
end

-- ---- dispatch ----

local function run(name, ...)
    local verb = verbs[name]
    if not verb then
        return 2, ("unknown verb %q%s"):format(name, nearest(name))
    end
    local arguments = table.pack(...)
    local options, count = {}, arguments.n
    if type(arguments[count]) == "table" then
        options, count = arguments[count], count - 1
    end
    if count < (verb.arguments or 0) or count > (verb.arguments or 0) + (verb.optional or 0) then
        return 2, ("%s: expected %d arguments, got %d"):format(name, verb.arguments or 0, count)
    end
    local ok, result = pcall(verb.run, table.unpack(arguments, 1, count))
    if not ok then
        return 1, tostring(result)
    end
    return 0, options.json and json.encode(result) or verb.show(result)
end

function _msg_dispatch_(source, session, name, ...)
    evpt.reply(source, session, 0, run(name, ...))
end
