/*
 * confine PROGRAM [ARGUMENT...]: runs it as containers usually run programs: with the system calls refused that Docker's
 * default profile refuses (https://docs.docker.com/engine/security/seccomp/), and no new privileges.
 */
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static const unsigned refused[] = {
    SYS_acct, SYS_add_key, SYS_bpf, SYS_clock_adjtime, SYS_clock_settime, SYS_create_module, SYS_delete_module,
    SYS_finit_module, SYS_get_kernel_syms, SYS_get_mempolicy, SYS_init_module, SYS_ioperm, SYS_iopl, SYS_kcmp,
    SYS_kexec_file_load, SYS_kexec_load, SYS_keyctl, SYS_lookup_dcookie, SYS_mbind, SYS_mount, SYS_move_pages,
    SYS_nfsservctl, SYS_open_by_handle_at, SYS_perf_event_open, SYS_personality, SYS_pivot_root, SYS_process_vm_readv,
    SYS_process_vm_writev, SYS_ptrace, SYS_query_module, SYS_quotactl, SYS_reboot, SYS_request_key, SYS_set_mempolicy,
    SYS_setns, SYS_settimeofday, SYS_swapoff, SYS_swapon, SYS_sysfs, SYS_umount2, SYS_unshare, SYS_uselib,
    SYS_userfaultfd, SYS_ustat, SYS_vhangup,
};
enum { REFUSED = sizeof refused / sizeof *refused, ROOM = 2 * REFUSED + 32 };

struct program {
    struct sock_filter code[ROOM];
    unsigned short length;
};

static void add(struct program *p, unsigned short code, unsigned char if_true, unsigned char if_false, unsigned k) {
    p->code[p->length++] = (struct sock_filter){code, if_true, if_false, k};
}

/* Goes on behind the answer where A is not the number. */
static void answer(struct program *p, unsigned number, unsigned error) {
    add(p, BPF_JMP | BPF_JEQ | BPF_K, 0, 1, number);
    add(p, BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ERRNO | error);
}

static void make(struct program *p) {
    enum { NAMESPACES = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET };
    add(p, BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(struct seccomp_data, arch));
    add(p, BPF_JMP | BPF_JEQ | BPF_K, 1, 0, AUDIT_ARCH_X86_64);
    add(p, BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW);
    add(p, BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(struct seccomp_data, nr));
    for (unsigned i = 0; i < REFUSED; i++)
        answer(p, refused[i], EPERM);
    answer(p, SYS_clone3, ENOSYS);
    add(p, BPF_JMP | BPF_JEQ | BPF_K, 0, 3, SYS_clone);
    add(p, BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(struct seccomp_data, args[0]));
    add(p, BPF_JMP | BPF_JSET | BPF_K, 0, 1, NAMESPACES);
    add(p, BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ERRNO | EPERM);
    add(p, BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW);
}

int main(int argc, char **argv) {
    struct program program = {.length = 0};
    make(&program);
    struct sock_fprog filter = {.len = program.length, .filter = program.code};
    if (argc < 2 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0) {
        fprintf(stderr, "confine: %s\n", argc < 2 ? "what?" : strerror(errno));
        return 125;
    }
    if (syscall(SYS_userfaultfd, 0) != -1 || errno != EPERM) {
        fprintf(stderr, "confine: the filter is not in force\n");
        return 125;
    }
    execv(argv[1], argv + 1);
    fprintf(stderr, "confine: %s: %s\n", argv[1], strerror(errno));
    return 126;
}
