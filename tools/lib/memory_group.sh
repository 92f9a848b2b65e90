# A control group of one's own, in which the memory of others can be measured. Sourced after common.sh.

# memory_group_create OWNER: makes one that OWNER (a user number) may make groups in, and prints its path; fails where the system has no memory controller or does not let us.
memory_group_create() {
    local owner=$1 version mount path group
    if mount=$(findmnt -n -o TARGET -t cgroup -O memory | head -n 1) && [ -n "$mount" ]; then
        version=1
        path=$(sed -n 's/^[0-9]*:\([^:]*,\)\?memory\(,[^:]*\)\?://p' /proc/self/cgroup)
    else
        version=2
        mount=$(findmnt -n -o TARGET -t cgroup2 | head -n 1)
        path=''
    fi
    group=$mount${path%/}/trapeze-bench.$$
    mkdir "$group" 2>/dev/null || return 1
    [ "$version" = 1 ] || memory_group_delegate "$mount" "$group" || {
        memory_group_destroy "$group"
        return 1
    }
    ! is_root || chown "$owner" "$group" "$group/cgroup.procs" "$group"/driver{,/cgroup.procs} 2>/dev/null || true
    echo "$group"
}

# A version 2 group has either processes or controllers for groups below: the driver gets a group beside those that it
# makes, so that it may move its children from one to the other.
memory_group_delegate() {
    local mount=$1 group=$2
    grep -qw memory "$mount/cgroup.controllers" &&
        { grep -qw memory "$mount/cgroup.subtree_control" || echo +memory >"$mount/cgroup.subtree_control"; } &&
        echo +memory >"$group/cgroup.subtree_control" && mkdir "$group/driver"
} 2>/dev/null

# memory_group_enter GROUP: moves this process to where it can move its children into groups below GROUP.
memory_group_enter() {
    [ ! -d "$1/driver" ] || echo "$BASHPID" >"$1/driver/cgroup.procs"
}

memory_group_destroy() {
    local group
    for group in "$1"/measured "$1"/driver "$1"; do
        [ ! -d "$group" ] || rmdir "$group" 2>/dev/null || say "could not remove the control group $group"
    done
}
