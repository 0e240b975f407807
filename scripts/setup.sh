#!/bin/bash
# Installs the Debian packages that are missing, with apt-get; nothing is asked of the network when all are there.
#   setup.sh           what the build and the C tests need
#   setup.sh --checks  the ffmpeg program as well, with which the checks of the frames make their clips
. "$(dirname "$0")/common.sh"

packages=(gcc g++ libc6-dev make cmake ninja-build pkg-config python3 python3-pip python3-venv
    libavformat-dev libavcodec-dev libavutil-dev libswscale-dev libseccomp-dev
    libjansson-dev libsqlite3-dev libutf8proc-dev libpng-dev libjpeg62-turbo-dev libcmocka-dev)
[ "${1:-}" != --checks ] || packages+=(ffmpeg)

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    echo "lowbeam: not a Debian system, so nothing is installed; needed are: ${packages[*]}" >&2
    exit 0
fi

missing=()
for package in "${packages[@]}"; do
    state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$state" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || fail "neither root nor sudo here; as root run: apt-get install ${missing[*]}"
    as_root=(sudo)
    # Asked for here, since the step below has no terminal; and "sudo -v" asks even some of those who need no password.
    sudo -n true 2>/dev/null || sudo -v || fail "sudo refused; as root run: apt-get install ${missing[*]}"
fi

apt_get() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -y -o DPkg::Lock::Timeout=300 "$@"
}
install_missing() {
    # Package lists that are absent or old make the first try fail; only then are they fetched.
    apt_get install --no-install-recommends "${missing[@]}" && return
    apt_get update && apt_get install --no-install-recommends "${missing[@]}"
}
step "installing Debian packages: ${missing[*]}" "$LOWBEAM_CACHE/log/apt.log" install_missing
