-- evpt -c battle.lua battle_1
services = {
    { "arena", args = { 1000 } },       -- how many may come in
}
