#!/usr/bin/env bash
# certs.sh EVPT-CERTS STAMP: the certificates of the tests. Beside STAMP, in certs: near and far by
# one CA; in stranger: near by another.
set -eu
folder=$(dirname "$2")
rm -rf "$folder/certs" "$folder/stranger"
"$1" --days 36500 -C "$folder/certs" near far >"$2"
"$1" --days 36500 -C "$folder/stranger" near >>"$2"
