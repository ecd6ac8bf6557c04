#!/usr/bin/env python3
"""Fails on an #include that goes up or sideways in the tower, on a Lua header below lua/, and on one of OpenSSL's outside
of the one file that knows it: that keeps it exchangeable, and what allocates past evpt_sys_alloc in one place.

    includes.py ROOT            checks the source tree
    includes.py --self-test     checks the checker
"""

import os
import posixpath
import re
import sys
import tempfile

import source

INCLUDE = re.compile(r"^[ \t]*#[ \t]*include[ \t]*[<\"]([^>\"]+)[>\"]", re.MULTILINE)
LUA_HEADER = re.compile(r"(^|/)(lua|lauxlib|lualib|luaconf)\.(h|hpp)$")
LUA_FLOORS = ("lua", "tools")
OPENSSL_HEADER = re.compile(r"^openssl/")
OPENSSL_FILE = "reactor/tls_openssl.c"


def resolve(root, path, name):
    """The included file relative to the root: beside the including one, else from the root, as the compiler looks."""
    beside = posixpath.normpath(posixpath.join(posixpath.dirname(path), name))
    if os.path.exists(os.path.join(root, beside)):
        return beside
    return posixpath.normpath(name)


def problems(root):
    seen = 0
    for path in source.files(root):
        floor = source.floor_of(path)
        text = source.without_comments(source.read(root, path))
        for match in INCLUDE.finditer(text):
            seen += 1
            name, line = match.group(1), text.count("\n", 0, match.start()) + 1
            target = source.floor_of(resolve(root, path, name))
            if target is not None and target > floor:
                yield "%s:%d: %s/ must not know %s/: %s" % (
                    path, line, source.FLOORS[floor], source.FLOORS[target], name)
            elif posixpath.normpath(name).startswith("tests/"):
                yield "%s:%d: the program must not know its tests: %s" % (path, line, name)
            elif LUA_HEADER.search(name) and target is None \
                    and source.FLOORS[floor] not in LUA_FLOORS:
                yield "%s:%d: %s/ must not know Lua: %s" % (path, line, source.FLOORS[floor], name)
            elif OPENSSL_HEADER.search(name) and path != OPENSSL_FILE:
                yield "%s:%d: only %s may know OpenSSL: %s" % (path, line, OPENSSL_FILE, name)
    if not seen:
        yield "no #include found under %s: is this the source tree?" % root


def self_test():
    cases = [
        # file, text, words of the problem (None: there is none)
        ("cluster/a.c", '#include "reactor/loop.h"\n#include "cluster/b.h"\n', None),
        ("tools/a.c", '#include "lua/vm.h"\n#include <stdio.h>\n', None),
        ("lua/a.c", "#include <lua.h>\n", None),
        ("reactor/a.c", '#include "reactor/b.h"\n/* #include "lua/vm.h" */\n// #include <lua.h>\n',
         None),
        ("reactor/a.c", 'x\n#include "cluster/frame.h"\n',
         "reactor/a.c:2: reactor/ must not know cluster/"),
        ("cluster/a.h", '#  include <services/log.h>\n', "cluster/ must not know services/"),
        ("services/a.c", '#include "lua/value.h"\n', "services/ must not know lua/"),
        ("lua/a.c", '#include "tools/main.h"\n', "lua/ must not know tools/"),
        ("reactor/sub/a.c", '#include "../../lua/vm.h"\n', "reactor/ must not know lua/"),
        ("services/a.c", '#include <lua.h>\n', "services/ must not know Lua"),
        ("services/a.c", '#include "lua5.4/lauxlib.h"\n', "services/ must not know Lua"),
        ("lua/a.c", '#include "tests/lua/support.h"\n', "must not know its tests"),
        ("reactor/tls_openssl.c", "#include <openssl/ssl.h>\n", None),
        ("reactor/stream.c", "#include <openssl/ssl.h>\n", "only reactor/tls_openssl.c may know OpenSSL"),
        ("tools/a.c", '#include "openssl/err.h"\n', "only reactor/tls_openssl.c may know OpenSSL"),
        ("reactor/a.c", "int x;\n", "no #include found"),
    ]
    for file, text, words in cases:
        with tempfile.TemporaryDirectory() as root:
            for path in (file, "lua/vm.h"):
                os.makedirs(os.path.dirname(os.path.join(root, path)), exist_ok=True)
                open(os.path.join(root, path), "a").close()
            with open(os.path.join(root, file), "w", encoding="utf-8") as out:
                out.write(text)
            found = list(problems(root))
            if words is None:
                assert not found, (text, found)
            else:
                assert len(found) == 1 and words in found[0], (text, found)
    assert source.report(["planted, and reported"]) == 1 and source.report([]) == 0


if __name__ == "__main__":
    if sys.argv[1:] == ["--self-test"]:
        self_test()
    else:
        sys.exit(source.report(problems(sys.argv[1])))
