-- evpt -c game.lua game_1
services = { "lobby" }
