# The benchmark's programs that Debian has packaged, with their libraries: downloaded as the guests are, and unpacked into
# two folders, bin and lib, from which their own loader starts them. Sourced after guests.sh.

readonly bench_packages=(coreutils cpp-12 libbinutils libc6 libexpat1 libgmp10 libisl23 liblzma5 libmpc3 libmpfr6
    libpython3.11-minimal libreadline8 libsqlite3-0 libssl3 libtinfo6 libzstd1 openssl python3.11-minimal sqlite3 xz-utils
    zlib1g)

# bench_packages_triplet ARCHITECTURE: prints the name by which compilers call it.
bench_packages_triplet() {
    case $1 in
    amd64) echo x86_64-linux-gnu ;;
    i386) echo i686-linux-gnu ;;
    esac
}

# bench_packages_fetch ARCHITECTURE FOLDER: leaves bin and lib in FOLDER/ARCHITECTURE. Needs guests_fetch to have read the
# package lists of that architecture.
bench_packages_fetch() {
    local architecture=$1 folder state partial triplet
    folder=$(mkdir -p "$2" && cd "$2" && pwd)
    [ ! -s "$folder/$architecture/complete" ] || return 0
    state=$folder/../apt/$architecture
    triplet=$(bench_packages_triplet "$architecture")
    partial=$folder/$architecture.partial
    rm -rf "$partial" "${folder:?}/$architecture"
    mkdir -p "$state"/{lists/partial,cache/archives/partial,log} "$partial"/{downloads,tree,bin,lib}
    [ -f "$state/status" ] || : >"$state/status"
    say "downloading the benchmark's programs ($architecture) into $folder"
    ! is_root || chown _apt "$partial/downloads" 2>/dev/null || true
    {
        guests_apt "$state" "$architecture" apt-get update || true
        (cd "$partial/downloads" && guests_apt "$state" "$architecture" apt-get download \
            "${bench_packages[@]}" "binutils-${triplet//_/-}")
    } >"$state/log/bench" 2>&1 || {
        grep -E '^(E:|W: Failed)' "$state/log/bench" | head -n 5 >&2 || true
        say "could not download them"
        return 1
    }
    bench_packages_unpack "$partial" "$triplet" || {
        say "the packages do not hold what they should"
        return 1
    }
    rm -rf "$partial"/{downloads,tree}
    echo "$architecture" >"$partial/complete"
    chmod -R u=rwX,go=rX "$partial"
    mv "$partial" "$folder/$architecture"
}

# bench_packages_unpack PARTIAL TRIPLET: takes what is needed out of PARTIAL/downloads.
bench_packages_unpack() {
    local partial=$1 triplet=$2 tree=$1/tree package name
    for package in "$partial"/downloads/*.deb; do
        dpkg-deb --fsys-tarfile "$package" |
            tar -x --no-same-owner -C "$tree" --exclude='./usr/share' --exclude='./etc' --exclude='gconv' || return 1
    done
    cp "$tree"/usr/bin/{openssl,python3.11,sqlite3,xz} "$tree/bin/dd" "$partial/bin" &&
        cp "$tree/usr/lib/gcc/$triplet/12/cc1" "$partial/bin/cc1" &&
        cp "$tree/usr/bin/$triplet-as" "$partial/bin/as" || return 1
    # Debian's folder of i386 libraries has another name than its compilers.
    for name in "$tree"/{usr/,}lib/{x86_64,i386}-linux-gnu; do
        [ ! -d "$name" ] || find "$name" -maxdepth 1 -name 'lib*.so*' -exec cp -P -t "$partial/lib" {} + || return 1
    done
    mkdir "$partial/lib/python3.11" "$partial/lib/python3.11/lib-dynload" &&
        cp -R "$tree"/usr/lib/python3.11/{encodings,codecs.py,os.py} "$partial/lib/python3.11" || return 1
    name=$(find "$tree/lib" -maxdepth 2 -name 'ld-linux*.so.2' -type f | head -n 1)
    [ -n "$name" ] && cp "$name" "$partial/lib/ld.so"
}
