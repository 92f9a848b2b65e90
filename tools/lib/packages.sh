# The Debian packages that building and testing need, and their installation. Sourced after common.sh.

readonly build_packages=(check cmake cpio gcc libc6-dev libcapstone-dev libelf-dev libzydis-dev ninja-build pkg-config)
readonly test_packages=(binutils gcc-multilib gdb strace)

# packages_ensure PACKAGE...: installs what is missing when root; else says exactly what to run.
packages_ensure() {
    local package missing=()
    command -v dpkg-query >/dev/null || die "this is no Debian system; needed are the equivalents of: $*"
    for package in "$@"; do
        case $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) in
        installed) ;;
        *) missing+=("$package") ;;
        esac
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    is_root || die "packages are missing; please run: sudo apt-get install --no-install-recommends ${missing[*]}"
    say "installing ${missing[*]}"
    apt-get -qq update || say "apt-get update failed; trying with the package lists that are here"
    DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends -o Dpkg::Use-Pty=0 \
        install "${missing[@]}" >/dev/null || die "apt-get could not install ${missing[*]}"
}
