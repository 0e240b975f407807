# shellcheck shell=bash
# Sourced by the other scripts: where things are kept, and steps that show one line and keep a log.
set -euo pipefail
LOWBEAM_TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
LOWBEAM_CACHE=${LOWBEAM_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/lowbeam}
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_NO_INPUT=1

fail() {
    echo "lowbeam: $*" >&2
    exit 1
}

# step NAME LOG COMMAND...: runs COMMAND with its output in LOG; one line with the time, or the end of LOG on failure.
step() {
    local name=$1 log=$2 start=$SECONDS status=0
    shift 2
    mkdir -p "$(dirname "$log")"
    printf 'lowbeam: %s ...' "$name" >&2
    "$@" >"$log" 2>&1 </dev/null || status=$?
    if [ $status -ne 0 ]; then
        echo " failed after $((SECONDS - start)) s; the end of $log:" >&2
        tail -n "${LOWBEAM_TAIL:-40}" "$log" >&2
        return $status
    fi
    echo " $((SECONDS - start)) s" >&2
}

# The Python that builds and checks: Debian's own, so that a python3 earlier in PATH does not decide; else that one.
find_python() {
    local python
    for python in "${LOWBEAM_PYTHON:-/usr/bin/python3}" python3; do
        if "$python" -c 'import venv, pip' 2>/dev/null; then
            echo "$python"
            return
        fi
    done
    fail "no python3 with pip and venv: install python3-pip and python3-venv, or set LOWBEAM_PYTHON"
}

# Hash of what decides how a cached folder was made; comments and empty lines do not count.
hash_of() {
    grep -hv -e '^#' -e '^$' "$@" | sha256sum | cut -c1-8
}

# Compile jobs at once: one a core, as far as the memory allows (kB a job).
n_jobs() {
    local cores memory
    cores=$(nproc)
    memory=$(awk '/MemAvailable/ { print $2 }' /proc/meminfo)
    memory=$((memory / $1))
    [ "$memory" -ge 1 ] || memory=1
    echo $((cores < memory ? cores : memory))
}

# lock_cache NAME: waits until no other process makes the same cached folder; held until this shell ends.
lock_cache() {
    mkdir -p "$LOWBEAM_CACHE" || fail "cannot make the cache folder $LOWBEAM_CACHE: set LOWBEAM_CACHE to one that can be written"
    exec 9>"$LOWBEAM_CACHE/$1.lock"
    if ! flock -n 9; then
        echo "lowbeam: waiting for another make that is making $1" >&2
        flock 9
    fi
}
