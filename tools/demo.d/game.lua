path     = "services/?.lua;demo/?.lua"
services = { "lobby", { "tour", args = { "tour.fifo" } } }
cluster  = { call_timeout_ms = 60000 }
