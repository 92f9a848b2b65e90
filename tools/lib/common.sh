# Shared by the scripts in tools/ and tests/: messages, and the unprivileged user that the product runs as.
# Sourced by bash; the caller has set -euo pipefail.

# Root hands the product to this user and group: Debian's nobody and nogroup, by number.
readonly product_uid=65534 product_gid=65534

say() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
}

die() {
    say "$*"
    exit 1
}

is_root() {
    [ "$(id -u)" = 0 ]
}

# Sets product_prefix to the words that go before a command of the product: no new privileges, and never root.
product_user() {
    product_prefix=(setpriv --no-new-privs)
    if is_root; then
        product_prefix+=("--reuid=$product_uid" "--regid=$product_gid" --clear-groups)
    fi
    "${product_prefix[@]}" true 2>/dev/null ||
        die "cannot become an unprivileged user here: '${product_prefix[*]} true' fails"
}
