-- Who is where. One copy on every machine; `evpt-ctl rewrite` replaces it while the nodes run.
game_1   = "127.0.0.1:8001"
battle_1 = "127.0.0.1:8002"
