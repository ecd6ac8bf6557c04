-- The journal of a node: one record for each thing that happened, written at once and in one piece, so that what is in it survives
-- SIGKILL. journal.py reads it.
local file = assert(io.open("journal", "ab"))
file:setvbuf("no") -- one write(2) for each record; opened for appending, so records of several services do not mix

local kinds = { call = 1, outcome = 2, executed = 3, send = 4, unsent = 5, damaged = 6 }
local executed_codes = { no = 0, maybe = 1, yes = 2 }

--- kind; index of the call; who: the target's number (its own for executed); ms: timeout of a call, lateness of an outcome; code and
-- `executed` of an outcome, 255 for an answer that is not that of the call.
return function(kind, index, who, ms, code, executed)
    assert(file:write(string.pack("<BBBBI4I8", kinds[kind], code or 0, executed_codes[executed] or 0, who, ms or 0, index)))
end
