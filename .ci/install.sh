# shellcheck shell=bash
# Sourced by ./demo and ./test: installs what a fresh Debian machine lacks.

has() { command -v "$1" >/dev/null 2>&1; }

# install_packages PACKAGE...: installs Debian packages, or says which ones to install.
install_packages() {
  [ "$#" -gt 0 ] || return 0
  if [ "$(id -u)" -eq 0 ] && has apt-get; then
    echo "installing Debian packages: $*" >&2
    apt-get update -qq >&2 || echo "apt-get update failed; continuing with the existing package lists" >&2
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
  else
    echo "error: missing Debian packages. Install them, then run $0 again:" >&2
    echo "  sudo apt-get install $*" >&2
    exit 1
  fi
}

# install_missing COMMAND=PACKAGE...: installs the packages of those commands that are missing.
install_missing() {
  local pair packages=()
  for pair in "$@"; do
    has "${pair%%=*}" || packages+=("${pair#*=}")
  done
  install_packages "${packages[@]}"
}

# install_library FILE PACKAGE: installs a library's package if no folder of /usr/lib has the file.
install_library() {
  local path
  for path in /usr/lib/*/"$1"; do
    if [ -e "$path" ]; then return 0; fi
  done
  install_packages "$2"
}

# A C compiler, make and cmake build aws-lc, zlib-ng and zstd. Rust itself is not installed: which
# toolchain is right is for rust-toolchain.toml and rustup.
install_build_tools() {
  install_missing cc=build-essential make=build-essential cmake=cmake
  # rustup adds its folder to PATH for new shells only.
  if ! has cargo && [ -f "$HOME/.cargo/env" ]; then
    # shellcheck disable=SC1091
    . "$HOME/.cargo/env"
  fi
  has cargo || {
    echo "error: no Rust toolchain. Install rustup from https://rustup.rs, then run $0 again" >&2
    exit 1
  }
}

# install_crate CRATE VERSION [FLAG...]: sets the variable `tool` to a program from crates.io, which is
# built once, into the user's cache, unless this version is on PATH. Fails if it cannot be built.
install_crate() {
  local crate=$1 version=$2 root
  shift 2
  tool=$crate
  if has "$crate" && "$crate" --version | grep -q " v\?$version$"; then
    return 0
  fi
  root=${XDG_CACHE_HOME:-$HOME/.cache}/hawkgate/$crate-$version
  tool=$root/bin/$crate
  [ -x "$tool" ] || cargo install "$crate" --version "$version" --locked --debug --quiet --root "$root" "$@"
}
