-- Code update, from the launcher's side: which services are meant, the text, then in each of them first the check and, when all have agreed,
-- the change (update.lua). The file is read once, so all get the same.
local evpt, builtin, core = ...
local rollout = {}

-- How long a service may take until it comes to a message. One that takes longer is not to be updated just now; and what it has not begun by
-- then it will not execute later either, for the deadline travels along. Check and change together take less than evpt-ctl waits.
local ANSWER_MS = 5000
-- Services that are asked at a time: enough for every worker, and not too many copies of the text.
local AT_A_TIME = 16

local SCRIPT = true -- in the place of a module's name

local one_at_a_time = evpt.queue()

-- Calls fn(each) for each of the list, some at a time, until all are done or one has returned something: that is returned, and of several the
-- one that comes first in the list.
local function for_each(list, fn)
    local me, running, nth, first, result = coroutine.running(), 0, 0, math.huge, nil
    local function work()
        while nth < #list and not result do
            nth = nth + 1
            local i = nth
            local got = fn(list[i])
            if got and i < first then
                first, result = i, got
            end
        end
        running = running - 1
        if running == 0 then
            evpt.wakeup(me)
        end
    end
    for _ = 1, math.min(AT_A_TIME, #list) do
        running = running + 1
        evpt.fork(work)
    end
    if running > 0 then
        evpt.wait()
    end
    return result
end

-- What a service answers to `.update`; nil: it has ended. Or nil and what went wrong.
local function ask(service, what, ...)
    -- of a change we have to know whether it was carried out, however long it takes
    local request = what == "apply" and core.request_begun_within or core.request_within
    local code, answer, problem = request(ANSWER_MS, service.handle, ".update", what, ...)
    if code == 0 then
        return answer, problem and ("%s: %s"):format(service.name, problem)
    elseif code ~= 5 then -- unknown_service
        return nil, ("%s: %s"):format(service.name, (answer.message:gsub("\n.*", "")))
    end
end

-- ---- who is meant ----

-- The services that run, in the order of their start: { handle =, name =, script = }.
local function running_services(started)
    local names, list = {}, {}
    for _, service in ipairs(builtin.services()) do
        names[service.handle] = service.name ~= "" and service.name or tostring(service.handle)
    end
    for _, service in ipairs(started) do
        if names[service.handle] then
            list[#list + 1] = { handle = service.handle, name = names[service.handle], script = service.script }
        end
    end
    return list
end

-- Those that have loaded the module, and its file.
local function with_module(services, module)
    local list, path = {}, nil
    local problem = for_each(services, function(service)
        local found, problem = ask(service, "find", module)
        if found and path and found ~= path then
            problem = ("module %s was loaded from two files, %s and %s"):format(module, path, found)
        elseif found then
            list[#list + 1], path = service, found
        end
        return problem
    end)
    if problem then
        error(problem, 0)
    end
    return list, path
end

local function file_of_script(script)
    local path, tried = package.searchpath(script, package.path)
    if not path then
        error(("script %s:%s"):format(script, tried:gsub("\n%s*", ", "):gsub("^,", "")), 0)
    end
    return path
end

-- What a name stands for: the services, the unit, its file. A script before a service, a service before a module.
local function resolve(name, started)
    local services = running_services(started)
    local of_script, service = {}, nil
    local handle = math.tointeger(tonumber(name)) or evpt.query(name)
    for _, each in ipairs(services) do
        of_script[#of_script + 1] = each.script == name and each or nil
        service = each.handle == handle and each or service
    end
    if service and of_script[1] and service.script ~= name then
        error(("%s is both a service, of script %s, and a script: name the service by its handle, %d"):format(name,
            service.script, handle), 0)
    elseif of_script[1] then
        return of_script, SCRIPT, file_of_script(name)
    elseif service then
        return { service }, SCRIPT, file_of_script(service.script)
    elseif handle and evpt.query(name) then
        error(("%s is built in: it comes with the program"):format(name), 0)
    end
    local users, path = with_module(services, name)
    if not path then
        error(("nothing runs here that is called %s: no service, no script, no module"):format(name), 0)
    end
    return users, name, path
end

-- ---- check, then change ----

local function read_file(path)
    local file, problem = io.open(path, "rb")
    local text
    if file then
        text, problem = file:read("a")
        file:close()
    end
    return text or error(problem, 0)
end

-- Asks all to do it. Their reports, in their order; what stopped it, if anything.
local function ask_all(services, what, unit, path, text)
    local reports, by_handle = {}, {}
    local problem = for_each(services, function(service)
        local report, problem = ask(service, what, unit, path, text)
        by_handle[service.handle] = report
        return problem
    end)
    for _, service in ipairs(services) do
        local report = by_handle[service.handle]
        if report then
            report.name, report.handle = service.name, service.handle
            reports[#reports + 1] = report
        end
    end
    return reports, problem
end

local function names_of(reports)
    local names = {}
    for i, report in ipairs(reports) do
        names[i] = report.name
    end
    return table.concat(names, " ")
end

local function run(started, name, dry_run)
    local services, unit, path = resolve(name, started)
    local text = read_file(path)
    local reports, problem = ask_all(services, "check", unit, path, text)
    if problem then
        error(problem, 0)
    end
    if not dry_run then
        reports, problem = ask_all(services, "apply", unit, path, text)
        if problem then -- all had agreed a moment ago
            error(("%s; updated already: %s"):format(problem, reports[1] and names_of(reports) or "none"), 0)
        end
        evpt.log.info("%s updated in: %s", path, names_of(reports))
    end
    return { file = path, dry_run = dry_run and true or false, services = reports }
end

--- Updates what `name` stands for. `started`: the launcher's list of services. Raises one line where something is wrong.
function rollout.run(started, name, dry_run)
    return one_at_a_time(run, started, name, dry_run)
end

return rollout
