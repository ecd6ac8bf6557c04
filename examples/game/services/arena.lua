-- Where players fight. Runs on battle nodes; the players' things stay on their own node.
local evpt    = require "evpt"
local cluster = require "evpt.cluster"

local seats, health, chat, most = {}, {}, {}, 1000

function __main__(seats_max)
    most = seats_max or most
end

evpt.export {
    join = function(player)
        if #seats >= most then error("the arena is full") end
        seats[#seats + 1] = player.player
        health[player.player] = 10 * player.level
        return #seats
    end,

    -- Asks the attacker's own node what he carries, and waits for the answer; meanwhile the arena
    -- goes on with other messages.
    strike = function(home, attacker, victim)
        local weapon, damage = cluster.call(home, "lobby", "weapon", attacker)
        local left = (health[victim] or 50) - damage
        health[victim] = left
        return ("%s hits %s with the %s: %d left"):format(attacker, victim, weapon, left)
    end,

    -- A recorded match, for instance: any bytes, up to message_max.
    replay = function(bytes)
        local sum = 0
        for at = 1, #bytes, 4096 do sum = (sum * 31 + bytes:byte(at)) % 4294967296 end
        return #bytes, sum
    end,

    say = function(line)            -- for remoteSend: nobody waits
        chat[#chat + 1] = line.text
    end,
    said = function() return #chat, chat[#chat] end,

    round = function() evpt.wait() end,     -- until the round is over, that is: for ever
}
