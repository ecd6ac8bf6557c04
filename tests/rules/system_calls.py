#!/usr/bin/env python3
"""Fails where something besides reactor/sys_linux*.c calls the system: clock, randomness, memory, sockets, files, stdio.

reactor/sys.h is the one door, so that a simulated machine can be linked in its place. The programs in tools/ are
outside of it.

    system_calls.py ROOT            checks the source tree
    system_calls.py --self-test     checks the checker
"""

import os
import re
import sys
import tempfile

import source

FLOORS = ("reactor", "cluster", "services", "lua")
DOORS = ("reactor/sys_linux.c", "reactor/sys_linux_process.c")

# Names that mean nothing else: found wherever they stand as a word.
NAMES = """
    malloc calloc realloc reallocarray posix_memalign aligned_alloc strdup strndup asprintf vasprintf
    clock_gettime gettimeofday clock_nanosleep nanosleep usleep getrandom arc4random srand
    epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 eventfd timerfd_create signalfd
    accept4 getaddrinfo gethostbyname getsockname getpeername setsockopt getsockopt socketpair
    recvfrom recvmsg sendto sendmsg readv writev pread pwrite fsync fdatasync openat unlink mkdir
    mkstemp mkdtemp fopen freopen fclose fread fwrite fprintf vfprintf fputs fputc puts perror
    getenv setenv sysconf sched_yield sched_getaffinity
""".split()
# Names that are words of their own too: found where they are called, and not as a member.
CALLS = """
    free time clock rand random sleep socket bind listen accept connect send recv shutdown select poll
    open close read write lseek stat fstat rename remove printf exit _exit fork kill system syscall
    ioctl fcntl mmap munmap
""".split()

PATTERN = re.compile(
    r"(?<![\w.>])(?:(?P<name>%s)\b|(?P<call>%s)[ \t]*\()" % ("|".join(NAMES), "|".join(CALLS)))


def problems(root):
    seen = 0
    for path in source.files(root, FLOORS):
        if path in DOORS:
            continue
        text = source.without_comments(source.read(root, path), keep_strings=False)
        # What is included is no call: <sys/eventfd.h>
        text = re.sub(r"(?m)^[ \t]*#[ \t]*include.*$", "", text)
        seen += 1
        for match in PATTERN.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            yield "%s:%d: calls %s(), which only %s may" % (
                path, line, match.group("name") or match.group("call"), " and ".join(DOORS))
    if not seen:
        yield "no source found under %s: is this the source tree?" % root


def self_test():
    cases = [
        # file, text, number of problems
        ("reactor/sys_linux.c", "p = malloc(1); close(fd);", 0),
        ("tools/main.c", "printf(x);", 0),
        ("cluster/a.c", "evpt_sys_free(p); pool->free(p); ops.open(x); list_free(p); int time;", 0),
        ("cluster/a.c", "/* malloc(1) */ // free(p)\nlog(\"open(%s) malloc\"); char c = '\"';", 0),
        ("cluster/a.c", "#include <sys/eventfd.h>\n", 0),
        ("cluster/a.c", "char c = '\"'; p = malloc(1); s = \"\\\"\";", 1),
        ("cluster/a.c", "free(p);", 1),
        ("lua/a.h", "return close (fd);", 1),
        ("services/a.c", "struct x x = {.alloc = malloc};\nt = time(NULL);", 2),
        ("reactor/sub/a.c", "x = a*read(fd);", 1),
    ] + [("lua/a.c", "x = %s(1);" % name, 1) for name in NAMES + CALLS]
    for file, text, count in cases:
        with tempfile.TemporaryDirectory() as root:
            for path in (file, "reactor/empty.c"):
                os.makedirs(os.path.dirname(os.path.join(root, path)), exist_ok=True)
                open(os.path.join(root, path), "a").close()
            with open(os.path.join(root, file), "w", encoding="utf-8") as out:
                out.write(text)
            found = list(problems(root))
            assert len(found) == count, (file, text, found)
    with tempfile.TemporaryDirectory() as root:
        assert len(list(problems(root))) == 1, "an empty tree must not pass"
    assert source.report(["planted, and reported"]) == 1 and source.report([]) == 0


if __name__ == "__main__":
    if sys.argv[1:] == ["--self-test"]:
        self_test()
    else:
        sys.exit(source.report(problems(sys.argv[1])))
