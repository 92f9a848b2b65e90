# Debian's own kernels and busybox as guests: downloaded, verified by apt's signatures, unpacked below a folder of the
# build tree, and packed into an initramfs. Nothing is installed on the host, and its package manager's state is not
# touched: apt runs with a private state and the host's sources and keys. Sourced after common.sh.

guests_library=$(dirname "${BASH_SOURCE[0]}")
readonly guests_library

# guests_describe GUEST: prints its Debian architecture and kernel package.
guests_describe() {
    case $1 in
    amd64) echo amd64 linux-image-amd64 ;;
    i386) echo i386 linux-image-686 ;;
    i386-pae) echo i386 linux-image-686-pae ;;
    *) return 1 ;;
    esac
}

# guests_apt STATE ARCHITECTURE TOOL ARGUMENT...: apt-get or apt-cache for another architecture, with its own state.
guests_apt() {
    local state=$1 architecture=$2 tool=$3
    shift 3
    "$tool" -q -o "APT::Architecture=$architecture" -o "APT::Architectures::=$architecture" \
        -o "Dir::State=$state" -o "Dir::State::status=$state/status" -o "Dir::Cache=$state/cache" \
        -o "Dir::Log=$state/log" -o Acquire::Languages=none -o Acquire::Retries=3 "$@"
}

# guests_unpack DOWNLOADS TO: takes the kernel and busybox out of the packages in DOWNLOADS.
guests_unpack() {
    local downloads=$1 to=$2 kernel
    dpkg-deb --fsys-tarfile "$downloads"/linux-image-*.deb | tar -x --no-same-owner -C "$downloads" ./boot &&
        dpkg-deb --fsys-tarfile "$downloads"/busybox-static_*.deb |
        tar -x --no-same-owner -C "$downloads" ./bin/busybox || return 1
    kernel=$(echo "$downloads"/boot/vmlinuz-*)
    [ -s "$kernel" ] || return 1
    mv "$downloads/bin/busybox" "$to/busybox"
    mv "$kernel" "$to/vmlinuz"
    echo "${kernel##*/vmlinuz-}" >"$to/release"
    chmod 0644 "$to/vmlinuz" "$to/release"
    chmod 0755 "$to/busybox"
}

# guests_fetch GUEST FOLDER: leaves vmlinuz, busybox and release (what uname -r prints) in FOLDER/GUEST.
guests_fetch() {
    local guest=$1 folder architecture meta state partial image
    folder=$(mkdir -p "$2" && cd "$2" && pwd)
    read -r architecture meta < <(guests_describe "$guest")
    [ ! -s "$folder/$guest/release" ] || return 0
    state=$folder/apt/$architecture
    partial=$folder/$guest.partial
    rm -rf "$partial" "${folder:?}/$guest"
    mkdir -p "$state"/{lists/partial,cache/archives/partial,log} "$partial/downloads"
    : >"$state/status"
    say "downloading Debian's $meta ($architecture) and busybox-static into $folder"
    # apt drops to its own user for the network, where that user can reach the folder.
    ! is_root || chown _apt "$partial/downloads" 2>/dev/null || true
    {
        # A mirror in the middle of its sync fails one index; what the others hold is signed and good enough.
        guests_apt "$state" "$architecture" apt-get update || true
        image=$(guests_apt "$state" "$architecture" apt-cache show --no-all-versions "$meta" |
            sed -n 's/^Depends: \(linux-image-[^ ,]*\).*/\1/p') && [ -n "$image" ] &&
            (cd "$partial/downloads" && guests_apt "$state" "$architecture" apt-get download "$image" busybox-static)
    } >"$state/log/fetch" 2>&1 || {
        grep -E '^(E:|W: Failed)' "$state/log/fetch" | head -n 5 >&2 || true
        say "could not download $meta"
        return 1
    }
    guests_unpack "$partial/downloads" "$partial" || {
        say "$image or busybox-static does not hold what it should"
        return 1
    }
    rm -rf "$partial/downloads"
    mv "$partial" "$folder/$guest"
}

# guests_initramfs BUSYBOX OUTPUT [TREE]: an initramfs of busybox, our /init, and the files of TREE.
guests_initramfs() {
    local busybox=$1 output=$2 tree=${3:-} stage
    stage=$(mktemp -d "$output.XXXXXX")
    mkdir -p "$stage/bin"
    cp "$busybox" "$stage/bin/busybox"
    cp "$guests_library/guest_init" "$stage/init"
    [ -z "$tree" ] || cp -R "$tree/." "$stage"
    chmod -R u=rwX,go=rX "$stage"
    chmod 0755 "$stage/init" "$stage/bin/busybox"
    (cd "$stage" && find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0) >"$output.new"
    rm -rf "$stage"
    mv "$output.new" "$output"
}
