-- The callee of `evpt-bench --local`.
local evpt = require "evpt"

evpt.export {
    echo = function(...)
        return ...
    end,
}
