-- The players of a game node: who they are and what they carry.
local evpt    = require "evpt"
local cluster = require "evpt.cluster"

local players = {
    ada = { level = 7, weapon = "axe", damage = 12 },
    bob = { level = 5, weapon = "bow", damage = 8 },
}

-- Sends a player to a battle node, in callback style: the lobby does not wait for the answer.
local function send_to_arena(node, name)
    cluster.remoteCall(node, "arena", "join", { player = name, level = players[name].level },
        function(session, code, seat)
            if code == 0 then
                evpt.log.info("%s has seat %d on %s", name, seat, node)
            else
                evpt.log.warn("%s did not get to %s: %s", name, node, seat) -- an error object
            end
        end)
end

evpt.export {                   -- for other nodes, and for this one
    weapon = function(name)
        local player = players[name]
        if not player then error("nobody is called " .. tostring(name)) end
        return player.weapon, player.damage
    end,
}

evpt.methods {                  -- for the services of this node only
    send_to_arena = send_to_arena,
}
