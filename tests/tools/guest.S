/*
 * A multiboot kernel that does one thing, named by the last letter of its command line:
 *   p power off   r reset by the 8042   t triple fault   x isa-debug-exit with 10h   h halt for good
 *   e echo COM1, and say "ready" first   c count in `counter` for ever   l 16-bit code, a loop at `real_mode`
 */
    .set HEADER_MAGIC, 0x1BADB002
    .set HEADER_FLAGS, 0
    .section .text
    .code32
    .balign 4
    .long HEADER_MAGIC, HEADER_FLAGS, -(HEADER_MAGIC + HEADER_FLAGS)

    .globl _start
_start:
    mov $stack_top, %esp
    mov 16(%ebx), %esi          /* the command line */
1:  lodsb
    test %al, %al
    jz 2f
    mov %al, %ah
    jmp 1b
2:  cmp $'p', %ah
    je power_off
    cmp $'r', %ah
    je reset
    cmp $'t', %ah
    je triple_fault
    cmp $'x', %ah
    je debug_exit
    cmp $'e', %ah
    je echo
    cmp $'c', %ah
    je count
    cmp $'l', %ah
    je to_real_mode
halt:
    cli
    hlt
    jmp halt

power_off:                      /* PM1_CNT: SLP_TYP 0, SLP_EN */
    mov $0x604, %dx
    mov $0x2000, %ax
    out %ax, %dx
    jmp halt

reset:
    mov $0xfe, %al
    out %al, $0x64
    jmp halt

triple_fault:
    lidt no_idt
    int3

debug_exit:
    mov $0x10, %al
    out %al, $0xf4
    jmp halt

echo:
    mov $ready, %esi
1:  lodsb
    test %al, %al
    jz 2f
    call put
    jmp 1b
2:  mov $0x3fd, %dx             /* LSR: a byte has come */
    in %dx, %al
    test $1, %al
    jz 2b
    mov $0x3f8, %dx
    in %dx, %al
    call put
    jmp 2b
put:
    mov %al, %bl
    mov $0x3fd, %dx             /* LSR: the transmitter is empty */
1:  in %dx, %al
    test $0x20, %al
    jz 1b
    mov $0x3f8, %dx
    mov %bl, %al
    out %al, %dx
    ret

    .globl count, counter, step_one, step_two
count:
    incl counter
step_one:
    nop
step_two:
    nop
    jmp count

to_real_mode:                   /* to 16-bit code at 8000h:0 by way of a 16-bit segment */
    mov $real_mode, %esi
    mov $0x80000, %edi
    mov $real_mode_end - real_mode, %ecx
    rep movsb
    lgdt gdt_pointer
    ljmp $8, $0
    .code16
real_mode:                      /* base 80000h */
    mov %cr0, %eax
    and $~1, %eax
    mov %eax, %cr0
    ljmp $0x8000, $(1f - real_mode)
1:  mov $0x1234, %bx
2:  inc %bx
    dec %bx
    jmp 2b
real_mode_end:
    .code32

    .balign 8
gdt:
    .quad 0
    .quad 0x00009a080000ffff    /* 16-bit code at 80000h */
gdt_pointer:
    .word gdt_pointer - gdt - 1
    .long gdt
no_idt:
    .word 0
    .long 0
ready:
    .asciz "ready\r\n"
    .balign 4
counter:
    .long 0
    .skip 256
stack_top:
