"""What the nodes wrote down, and whether it keeps the promise of RELIABILITY.md.

judge() takes the journals of all nodes and says what is wrong. Its rules:

- each call of a life (one run of a calling service) has exactly one outcome, unless that life has
  been ended from outside; it comes at most LATE_MS after its deadline (plus what its node stood
  still);
- outcome and `executed` are a pair that SPEC's table allows, and the scenario expects the outcome;
- nothing is executed twice, and nothing that nobody asked for;
- who got an answer was executed once; an outcome with executed = "no" was not, ever;
- what one service asks of another is executed in the order asked, within one connection: a call
  that got its answer was sent over the connection that was there all the while, so nothing asked
  later may come before it; where no connection was lost, that holds for everything.
"""

import collections
import struct

RECORD = struct.Struct("<BBBBIQ")
CALL, OUTCOME, EXECUTED, SEND, UNSENT, DAMAGED = range(1, 7)
NO, MAYBE, YES = range(3)
EXECUTED_NAMES = ("no", "maybe", "yes")
WRONG_ANSWER = 255
OK, DISCONNECTED, FAILED = 0, 3, 7
LIFE_SHIFT = 32         # an index is the life of its caller and a number

# A timer is late by what the machine is busy: everything here may run on two cores that others use
# as well. That is what this bound is for; without load it is a few milliseconds.
LATE_MS = 1000

NAMES = ("ok", "unknown_node", "connect_failed", "disconnected", "timeout", "unknown_service",
         "unknown_method", "failed", "overloaded", "too_large", "bad_message", "stopping")
# SPEC, section 4, "Outcomes"
PAIRS = {0: {YES}, 1: {NO}, 2: {NO}, 3: {NO, MAYBE}, 4: {NO, MAYBE}, 5: {NO}, 6: {NO}, 7: {YES},
         8: {NO}, 9: {NO}, 10: {NO}, 11: {NO}}


class PromiseBroken(Exception):
    pass


class Life:
    """One run of a calling service."""

    def __init__(self, number, name):
        self.number, self.name = number, name
        self.ended = False      # with its node: who was waiting then has no outcome
        self.still_ms = 0       # the longest that its node stood still
        self.in_order = True    # as far as is known no connection of its node was lost meanwhile

    @property
    def base(self):
        return self.number << LIFE_SHIFT


class Call:
    __slots__ = ("target", "timeout_ms", "is_send", "outcome", "how", "late_ms", "times", "astray")

    def __init__(self, target, timeout_ms, is_send):
        self.target, self.timeout_ms, self.is_send = target, timeout_ms, is_send
        self.outcome = self.how = None
        self.late_ms = self.times = 0
        self.astray = False     # executed by another service than the one that was asked


def fail(index, calls, text):
    call = calls.get(index)
    about = "" if call is None else " to %d (outcome %s, executed %d times)" % (
        call.target, "none" if call.outcome is None else outcome_name(call), call.times)
    raise PromiseBroken("%s %d of life %d%s: %s" % (
        "send" if call is not None and call.is_send else "call", index & 0xffffffff,
        index >> LIFE_SHIFT, about, text))


def outcome_name(call):
    if call.outcome == WRONG_ANSWER:
        return "wrong answer"
    return "%s/%s" % (NAMES[call.outcome], EXECUTED_NAMES[call.how])


def read(journals):
    """{index: Call}, {target: [index, in order of execution]} and the number of damaged requests,
    from {node: bytes}; PromiseBroken where that cannot be."""
    calls, done, damaged = {}, collections.defaultdict(list), 0
    for data in journals.values():
        for kind, _, _, who, timeout_ms, index in RECORD.iter_unpack(data):
            if kind in (CALL, SEND):
                if index in calls:
                    fail(index, calls, "made twice: the test is wrong")
                calls[index] = Call(who, timeout_ms, kind == SEND)
    for data in journals.values():
        for kind, code, how, who, late_ms, index in RECORD.iter_unpack(data):
            if kind == DAMAGED:
                damaged += 1
                continue
            call = calls.get(index)
            if call is None:
                fail(index, calls, "nobody made it")
            if kind in (OUTCOME, UNSENT):
                if call.outcome is not None:
                    fail(index, calls, "a second outcome")
                call.outcome, call.how, call.late_ms = code, how, late_ms
            elif kind == EXECUTED:
                call.astray |= who != call.target
                call.times += 1
                done[who].append(index)
    return calls, done, damaged


def check_outcome(index, calls, life, allowed):
    call = calls[index]
    if call.outcome is None:
        if not call.is_send and not life.ended:
            fail(index, calls, "no outcome")
        return
    if call.outcome == WRONG_ANSWER:
        fail(index, calls, "the answer is not that of the call")
    if call.how not in PAIRS[call.outcome]:
        fail(index, calls, "no such pair")
    if call.outcome not in allowed:
        fail(index, calls, "not expected here")
    if call.late_ms > LATE_MS + life.still_ms:
        fail(index, calls, "%d ms after its deadline of %d ms" % (call.late_ms, call.timeout_ms))


def check_execution(index, calls):
    call = calls[index]
    if call.astray:
        fail(index, calls, "executed by another service")
    if call.times > 1:
        fail(index, calls, "executed twice")
    if call.outcome is None:
        return
    if call.how == NO and call.times:
        fail(index, calls, "executed, and its outcome says no")
    if call.how == YES and not call.times:
        fail(index, calls, "not executed, and its outcome says yes")


def check_order(done, calls, lives):
    """Returns how many were overtaken by what their caller sent over a later connection."""
    overtaken = 0
    for order in done.values():
        newest = collections.defaultdict(int)       # by life
        for index in order:
            life = index >> LIFE_SHIFT
            if index > newest[life]:
                newest[life] = index
                continue
            if lives[life].in_order or calls[index].outcome in (OK, FAILED):
                fail(index, calls, "executed after %d, which was asked later over the same "
                     "connection" % (newest[life] & 0xffffffff))
            overtaken += 1
    return overtaken


def judge(journals, lives, allowed=frozenset({0, 2, 3, 4, 7}), unsafe=frozenset()):
    """Counts of what happened. `unsafe`: (life, node of the target) whose bytes were changed on the
    way; of those calls only the outcomes are counted, each once and in time."""
    calls, done, damaged = read(journals)
    counts = collections.Counter()
    latest = 0
    for index, call in calls.items():
        life = lives[index >> LIFE_SHIFT]
        counts["sends" if call.is_send else "calls"] += 1
        counts["executed"] += call.times
        if call.outcome == DISCONNECTED:
            life.in_order = False
        if call.outcome is not None and not call.is_send:
            counts[outcome_name(call)] += 1
            latest = max(latest, call.late_ms - life.still_ms)
        if (life.number, call.target >> 4) in unsafe:
            if call.outcome is None and not call.is_send and not life.ended:
                fail(index, calls, "no outcome")
            if call.late_ms > LATE_MS + life.still_ms:
                fail(index, calls, "%d ms after its deadline" % call.late_ms)
            continue
        check_outcome(index, calls, life, allowed)
        check_execution(index, calls)
    if damaged and not unsafe:
        raise PromiseBroken("%d requests arrived with other arguments than were sent" % damaged)
    safe = {target: [i for i in order if (i >> LIFE_SHIFT, target >> 4) not in unsafe]
            for target, order in done.items()}
    counts["overtaken by a reconnect"] = check_order(safe, calls, lives)
    counts["damaged"] = damaged
    return counts, max(latest, 0)
