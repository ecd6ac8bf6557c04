#!/usr/bin/env python3
"""Makes a C file of Lua sources: embed.py OUTPUT NAME=FILE... (struct evpt_embedded in lua/vm.h)."""
import sys

out = ['#include "lua/vm.h"\n']
rows = []
for number, pair in enumerate(sys.argv[2:]):
    name, path = pair.split("=", 1)
    data = open(path, "rb").read()
    out.append(f"static const char text_{number}[] = {{")
    for at in range(0, len(data), 20):
        out.append("    " + "".join(f"{byte}," for byte in data[at:at + 20]))
    out.append("};\n")
    rows.append(f'    {{"{name}", text_{number}, sizeof(text_{number})}},')
out.append("const struct evpt_embedded evpt_embedded[] = {")
out += rows + ["    {0},", "};", ""]
open(sys.argv[1], "w").write("\n".join(out))
