/* Trap entries of 32-bit programs. The frame is struct trap_frame of trap32.c. */
.text
.globl trap_stubs, run_enter, run_finish

.align 16
trap_stubs:
.set vector, 0
.rept 256
    .align 16
    .if vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21
    .else
    push $0
    .endif
    push $vector
    jmp trap_common
    .set vector, vector + 1
.endr

trap_common:
    push %ds
    push %es
    push %fs
    push %gs
    pushal
    cld
    mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    push %esp
    call trap_dispatch
    add $4, %esp
    popal
    pop %gs
    pop %fs
    pop %es
    pop %ds
    add $8, %esp
    iretl

/*
 * run_enter(image, word *saved_sp): the image is what popal, four segment pops and iretl take, in place on the stack
 * that the snippet starts with.
 */
run_enter:
    mov 4(%esp), %eax
    mov 8(%esp), %ecx
    pushfl
    cli
    push %ebx
    push %ebp
    push %esi
    push %edi
    mov %esp, (%ecx)
    mov %eax, %esp
    popal
    pop %gs
    pop %fs
    pop %es
    pop %ds
    iretl

/* run_finish(saved_sp) */
run_finish:
    mov 4(%esp), %ecx
    mov $0x10, %eax
    mov %eax, %ss
    mov %ecx, %esp
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %fs
    mov %eax, %gs
    pop %edi
    pop %esi
    pop %ebp
    pop %ebx
    popfl
    ret
.section .note.GNU-stack, "", @progbits
