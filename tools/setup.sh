# shellcheck shell=bash
# For tools/demo and tools/test: sourced, with the root of the project as working directory.
# Installs what is missing and builds; says one line about each.

bold='' green='' red='' plain=''
# shellcheck disable=SC2034 # green and red are for those who source this
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
    bold=$'\e[1m' green=$'\e[32m' red=$'\e[31m' plain=$'\e[0m'
fi

heading() { printf '\n%s== %s%s\n' "$bold" "$*" "$plain"; }

# have WHAT: is it there? By what it offers, not by its package, so that other systems than Debian
# pass too.
have() {
    case $1 in
    gcc | meson | python3) command -v "$1" >/dev/null ;;
    ninja-build) command -v ninja >/dev/null ;;
    pkg-config) command -v pkg-config >/dev/null ;;
    check) pkg-config --exists check ;;
    liblua5.4-dev) pkg-config --exists lua5.4 || pkg-config --exists lua-5.4 ;;
    libmsgpack-dev) pkg-config --exists msgpack || pkg-config --exists msgpack-c ;;
    libssl-dev) pkg-config --exists 'openssl >= 3.0' ;;
    openssl) command -v openssl >/dev/null ;;
    libc6-dev) [ -e /usr/include/stdio.h ] ;;
    *) return 1 ;;
    esac 2>/dev/null
}

apt_updated=
# install_missing PACKAGE...: with apt-get, only what is not there. False where something is
# missing afterwards; the names are then in $missing.
install_missing() {
    local package wanted=()
    missing=
    for package; do have "$package" || wanted+=("$package"); done
    [ ${#wanted[@]} -gt 0 ] || return 0
    if command -v apt-get >/dev/null && [ "$(id -u)" -eq 0 ]; then
        echo "installing: ${wanted[*]}"
        [ -n "$apt_updated" ] || apt-get -qq update || true
        apt_updated=1
        DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install \
            "${wanted[@]}" >/dev/null || true
    fi
    for package in "${wanted[@]}"; do have "$package" || missing+=" $package"; done
    [ -z "$missing" ]
}

# shellcheck disable=SC2034 # for those who source this
build_packages=(gcc libc6-dev meson ninja-build pkg-config liblua5.4-dev)
# What evpt can be built without: TLS between nodes, and what makes certificates for its tests.
# shellcheck disable=SC2034
optional_packages=(libssl-dev openssl)

# want PACKAGE...: says where one cannot be had, and goes on.
want() {
    install_missing "$@" || echo "without:$missing (TLS between nodes is left out, or not tested)"
}

# need PACKAGE...: ends the program where one cannot be had.
need() {
    install_missing "$@" && return
    echo "missing, and not to be installed from here (needs root and apt-get):$missing" >&2
    exit 1
}

# build NAME MESON-OPTION...: builds into build/NAME; says what went wrong, and only then much.
build() {
    local dir=build/$1 log
    log=$(mktemp)
    shift
    if { [ -f "$dir/build.ninja" ] || meson setup "$dir" "$@"; } >"$log" 2>&1 &&
        ninja --quiet -C "$dir" >>"$log" 2>&1; then
        echo "built $dir"
        rm -f "$log"
        return 0
    fi
    echo "${red}could not build $dir${plain}" >&2
    tail -n 60 "$log" >&2
    rm -f "$log"
    return 1
}
