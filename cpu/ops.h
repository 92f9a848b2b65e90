/*
 * The instructions that C functions run, because they are privileged, sensitive, or cannot run as they are under
 * translation. X(name): cpu_op_name of cpu/op.h's type. Second column: whether user programs may execute it, that is,
 * whether a run of it counts as an unprivileged instruction that the host did not run itself.
 */
#ifndef CPU_OPS_H
#define CPU_OPS_H

#include "cpu/op.h"

enum { CPU_OP_SYSTEM = 0, CPU_OP_USER = 1 };

/* Control transfers, segments, descriptor tables: segment.c, far.c, iret.c, interrupt.c, task.c, syscall.c */
#define CPU_OPS_TRANSFER(X)                                                                                            \
    X(far_call, CPU_OP_SYSTEM) /* 9A and FF /3 (memory form: rm has the far pointer) */                                \
    X(far_jmp, CPU_OP_SYSTEM)                                                                                          \
    X(far_ret, CPU_OP_SYSTEM) /* immediate: bytes to release */                                                        \
    X(iret, CPU_OP_SYSTEM)                                                                                             \
    X(int_n, CPU_OP_SYSTEM) /* immediate: vector */                                                                    \
    X(int3, CPU_OP_SYSTEM)                                                                                             \
    X(int1, CPU_OP_SYSTEM)                                                                                             \
    X(into, CPU_OP_SYSTEM)                                                                                             \
    X(syscall, CPU_OP_SYSTEM)                                                                                          \
    X(sysret, CPU_OP_SYSTEM)                                                                                           \
    X(sysenter, CPU_OP_SYSTEM)                                                                                         \
    X(sysexit, CPU_OP_SYSTEM)                                                                                          \
    X(mov_to_segment, CPU_OP_SYSTEM) /* reg: segment register */                                                       \
    X(mov_from_segment, CPU_OP_SYSTEM)                                                                                 \
    X(push_segment, CPU_OP_SYSTEM)                                                                                     \
    X(pop_segment, CPU_OP_SYSTEM)                                                                                      \
    X(load_far_pointer, CPU_OP_SYSTEM) /* LDS LES LFS LGS LSS; immediate2: the segment register, reg: general */       \
    X(lldt, CPU_OP_SYSTEM)                                                                                             \
    X(ltr, CPU_OP_SYSTEM)                                                                                              \
    X(sldt, CPU_OP_SYSTEM)                                                                                             \
    X(str, CPU_OP_SYSTEM)                                                                                              \
    X(lgdt, CPU_OP_SYSTEM)                                                                                             \
    X(lidt, CPU_OP_SYSTEM)                                                                                             \
    X(sgdt, CPU_OP_SYSTEM)                                                                                             \
    X(sidt, CPU_OP_SYSTEM)                                                                                             \
    X(lar, CPU_OP_SYSTEM)                                                                                              \
    X(lsl, CPU_OP_SYSTEM)                                                                                              \
    X(verr, CPU_OP_SYSTEM)                                                                                             \
    X(verw, CPU_OP_SYSTEM)                                                                                             \
    X(arpl, CPU_OP_SYSTEM)                                                                                             \
    X(swapgs, CPU_OP_SYSTEM)

/* Everything else: system.c, flags.c, strings.c, ports.c, legacy.c, xstate.c, gather.c ... */
#define CPU_OPS_OTHER(X)                                                                                               \
    X(cpuid, CPU_OP_SYSTEM)                                                                                            \
    X(rdmsr, CPU_OP_SYSTEM)                                                                                            \
    X(wrmsr, CPU_OP_SYSTEM)                                                                                            \
    X(rdtsc, CPU_OP_SYSTEM)                                                                                            \
    X(rdtscp, CPU_OP_SYSTEM)                                                                                           \
    X(rdpid, CPU_OP_SYSTEM)                                                                                            \
    X(rdpmc, CPU_OP_SYSTEM)                                                                                            \
    X(mov_from_cr, CPU_OP_SYSTEM) /* reg: control register, rm: general register */                                    \
    X(mov_to_cr, CPU_OP_SYSTEM)                                                                                        \
    X(mov_from_dr, CPU_OP_SYSTEM)                                                                                      \
    X(mov_to_dr, CPU_OP_SYSTEM)                                                                                        \
    X(clts, CPU_OP_SYSTEM)                                                                                             \
    X(lmsw, CPU_OP_SYSTEM)                                                                                             \
    X(smsw, CPU_OP_SYSTEM)                                                                                             \
    X(invlpg, CPU_OP_SYSTEM)                                                                                           \
    X(invpcid, CPU_OP_SYSTEM)                                                                                          \
    X(cache_control, CPU_OP_SYSTEM) /* INVD, WBINVD, WBNOINVD */                                                       \
    X(hlt, CPU_OP_SYSTEM)                                                                                              \
    X(pause, CPU_OP_SYSTEM)                                                                                            \
    X(monitor, CPU_OP_SYSTEM)                                                                                          \
    X(mwait, CPU_OP_SYSTEM)                                                                                            \
    X(cli, CPU_OP_SYSTEM)                                                                                              \
    X(sti, CPU_OP_SYSTEM) /* sets interrupt_shadow when IF was clear */                                                \
    X(clac, CPU_OP_SYSTEM)                                                                                             \
    X(stac, CPU_OP_SYSTEM)                                                                                             \
    X(pushf, CPU_OP_SYSTEM)                                                                                            \
    X(popf, CPU_OP_SYSTEM)                                                                                             \
    X(in, CPU_OP_SYSTEM) /* port: immediate if opcode is E4/E5, else DX */                                             \
    X(out, CPU_OP_SYSTEM)                                                                                              \
    X(ins, CPU_OP_SYSTEM)                                                                                              \
    X(outs, CPU_OP_SYSTEM)                                                                                             \
    X(xgetbv, CPU_OP_SYSTEM)                                                                                           \
    X(xsetbv, CPU_OP_SYSTEM)                                                                                           \
    X(rdfsbase, CPU_OP_SYSTEM)                                                                                         \
    X(rdgsbase, CPU_OP_SYSTEM)                                                                                         \
    X(wrfsbase, CPU_OP_SYSTEM)                                                                                         \
    X(wrgsbase, CPU_OP_SYSTEM)                                                                                         \
    X(movs, CPU_OP_USER) /* string instructions: rep, size, address_size, segment of the source */                     \
    X(cmps, CPU_OP_USER)                                                                                               \
    X(stos, CPU_OP_USER)                                                                                               \
    X(lods, CPU_OP_USER)                                                                                               \
    X(scas, CPU_OP_USER)                                                                                               \
    X(aaa, CPU_OP_USER)                                                                                                \
    X(aas, CPU_OP_USER)                                                                                                \
    X(aam, CPU_OP_USER)                                                                                                \
    X(aad, CPU_OP_USER)                                                                                                \
    X(daa, CPU_OP_USER)                                                                                                \
    X(das, CPU_OP_USER)                                                                                                \
    X(salc, CPU_OP_USER)                                                                                               \
    X(bound, CPU_OP_USER)                                                                                              \
    X(pusha, CPU_OP_USER)                                                                                              \
    X(popa, CPU_OP_USER)                                                                                               \
    X(enter, CPU_OP_USER)                                                                                              \
    X(xsave, CPU_OP_USER) /* also XSAVEOPT */                                                                          \
    X(xsavec, CPU_OP_USER)                                                                                             \
    X(xsaves, CPU_OP_SYSTEM)                                                                                           \
    X(xrstor, CPU_OP_USER)                                                                                             \
    X(xrstors, CPU_OP_SYSTEM)                                                                                          \
    X(fxsave, CPU_OP_USER)                                                                                             \
    X(fxrstor, CPU_OP_USER)                                                                                            \
    X(fnstenv, CPU_OP_USER)                                                                                            \
    X(fldenv, CPU_OP_USER)                                                                                             \
    X(fnsave, CPU_OP_USER)                                                                                             \
    X(frstor, CPU_OP_USER)                                                                                             \
    X(maskmov, CPU_OP_USER) /* MASKMOVQ, MASKMOVDQU: reg is the data, rm the mask; opcode map and prefix by mnemonic */ \
    X(gather, CPU_OP_USER)                                                                                             \
    X(scatter, CPU_OP_USER)                                                                                            \
    X(movdir64b, CPU_OP_USER)

#define CPU_OPS(X) CPU_OPS_TRANSFER(X) CPU_OPS_OTHER(X)

#define CPU_OP_DECLARE(name, privilege) cpu_op_function cpu_op_##name;
CPU_OPS(CPU_OP_DECLARE)
#undef CPU_OP_DECLARE

/* ---- Events, not instructions: interrupt.c ---- */

/*
 * Delivers cpu->exception through the IDT (SDM vol. 3A, 6): contributory and page faults while one is being delivered
 * become #DF, and that a shutdown. CPU_JUMP, or CPU_STOP with CPU_STOP_SHUTDOWN.
 */
enum cpu_result cpu_deliver_exception(struct cpu *cpu);
/* Delivers an external interrupt; the caller has checked IF and the shadow. Wakes from HLT. */
enum cpu_result cpu_deliver_interrupt(struct cpu *cpu, unsigned vector);
enum cpu_result cpu_deliver_nmi(struct cpu *cpu);

/* State after RESET (SDM vol. 3A, table 9-1) and after INIT; SIPI starts real mode at vector << 12. */
void cpu_reset(struct cpu *cpu);
void cpu_init(struct cpu *cpu);
void cpu_start(struct cpu *cpu, unsigned vector);

#endif
