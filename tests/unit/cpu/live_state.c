/*
 * See live_state.h.
 */
#include "live_state.h"

#include <string.h>

enum cpu_result live_call(cpu_op_function *run, struct fake_cpu *fake, const struct cpu_op *op, uint8_t *image,
                          uint64_t mask);

/* Three pushes leave the stack aligned for the call. */
__asm__(".text\n"
        ".globl live_call\n"
        ".type live_call, @function\n"
        "live_call:\n"
        "    push %rbx\n"
        "    push %r12\n"
        "    push %r13\n"
        "    mov %rcx, %rbx\n"
        "    mov %rdi, %r12\n"
        "    mov %r8, %r13\n"
        "    mov %rsi, %rdi\n"
        "    mov %rdx, %rsi\n"
        "    mov %r13d, %eax\n"
        "    xor %edx, %edx\n"
        "    xrstor64 (%rbx)\n"
        "    call *%r12\n"
        "    mov %eax, %r12d\n"
        "    mov %r13d, %eax\n"
        "    xor %edx, %edx\n"
        "    xsave64 (%rbx)\n"
        "    fninit\n"
        "    pushq $0x1f80\n"
        "    ldmxcsr (%rsp)\n"
        "    pop %rax\n"
        "    mov %r12d, %eax\n"
        "    pop %r13\n"
        "    pop %r12\n"
        "    pop %rbx\n"
        "    ret\n"
        ".size live_call, . - live_call\n");

void live_fill(struct live_state *live, uint64_t mask, unsigned seed) {
    memset(live, 0, sizeof *live);
    for (unsigned i = IMAGE_ST; i < sizeof live->image; i++)
        live->image[i] = (uint8_t)(i * 31 + i / 64 + seed);
    memset(live->image + IMAGE_XMM_END, 0, IMAGE_EXTENDED - IMAGE_XMM_END);
    for (unsigned i = 0; i < 8; i++) /* the padding of each ST register */
        memset(live->image + IMAGE_ST + 16 * i + 10, 0, 6);
    uint16_t control = 0x37f;
    uint32_t mxcsr = 0x1f80 | (seed & 1) << 13;
    memcpy(live->image, &control, 2);
    live->image[4] = 0xff; /* every ST register is in use */
    memcpy(live->image + IMAGE_MXCSR, &mxcsr, 4);
    memcpy(live->image + IMAGE_HEADER, &mask, 8);
}

enum cpu_result live_run(cpu_op_function *run, struct fake_cpu *fake, const struct cpu_op *op, struct live_state *live,
                         uint64_t mask) {
    live->result = (int)live_call(run, fake, op, live->image, mask);
    return (enum cpu_result)live->result;
}
