%% Erlang for tools/bench/peers: gen_server:call with a binary of 64 bytes, a process for each call in flight.
%%
%%     erl -noshell ... -s evpt_peer server                                        serves as `echo`, until it is killed
%%     erl -noshell ... -run evpt_peer client NODE|local IN_FLIGHT MILLISECONDS
%%
%% Prints "CALLS_PER_SECOND P50_NS", after half a second of warm-up.
-module(evpt_peer).
-behaviour(gen_server).
-export([server/0, client/1, init/1, handle_call/3, handle_cast/2]).

server() ->
    {ok, _} = gen_server:start({local, echo}, ?MODULE, [], []).

init([]) ->
    {ok, none}.

handle_call({echo, Data}, _From, State) ->
    {reply, Data, State}.

handle_cast(_Request, State) ->
    {noreply, State}.

client([Where, InFlight, Milliseconds]) ->
    Server = case Where of
        "local" -> server(), echo;
        Node -> {echo, list_to_atom(Node)}
    end,
    wait_for(Server, 1000),
    Data = binary:copy(<<"x">>, 64),
    Counts = counters:new(1, [write_concurrency]),
    Phase = atomics:new(1, []),
    Callers = [spawn_monitor(fun() -> exit({times, call(Server, Data, Counts, Phase, [], 0)}) end)
               || _ <- lists:seq(1, list_to_integer(InFlight))],
    timer:sleep(500),
    Before = counters:get(Counts, 1),
    Began = erlang:monotonic_time(nanosecond),
    atomics:put(Phase, 1, 1),
    timer:sleep(list_to_integer(Milliseconds)),
    Count = counters:get(Counts, 1) - Before,
    Took = erlang:monotonic_time(nanosecond) - Began,
    atomics:put(Phase, 1, 2),
    Times = lists:sort(lists:append([receive {'DOWN', Ref, process, Pid, {times, T}} -> T end || {Pid, Ref} <- Callers])),
    io:format("~b ~b~n", [round(Count * 1.0e9 / Took), lists:nth((length(Times) + 1) div 2, Times)]),
    halt(0).

%% It may just be starting.
wait_for(Server, Tries) ->
    case catch gen_server:call(Server, {echo, up}) of
        up -> ok;
        _ when Tries > 0 -> timer:sleep(10), wait_for(Server, Tries - 1)
    end.

%% A sample of one call in 16 is enough for the median.
call(Server, Data, Counts, Phase, Times, N) ->
    Since = erlang:monotonic_time(nanosecond),
    Data = gen_server:call(Server, {echo, Data}, infinity),
    counters:add(Counts, 1, 1),
    case atomics:get(Phase, 1) of
        0 -> call(Server, Data, Counts, Phase, Times, 0);
        1 when N rem 16 =:= 0 ->
            call(Server, Data, Counts, Phase, [erlang:monotonic_time(nanosecond) - Since | Times], N + 1);
        1 -> call(Server, Data, Counts, Phase, Times, N + 1);
        2 -> Times
    end.
