/*
 * A multiboot kernel that does one thing, named by the last letter of its command line:
 *   p power off   r reset by the 8042   t triple fault   x isa-debug-exit with 10h   h halt for good
 *   e echo COM1, and say "ready" first   c count in `counter` for ever   l 16-bit code, a loop at `real_mode`
 *   i tell COM1 and port E9h what it was given, and power off   u an instruction that is none here, then t
 *   w garbage into all ports and the memory of devices, for ever   g read a port where nothing is, and power off   m turn paging on and off, and power off
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
    cmp $'i', %ah
    je inform
    cmp $'u', %ah
    je undefined
    cmp $'w', %ah
    je wild
    cmp $'g', %ah
    je read_nothing
    cmp $'m', %ah
    je use_paging
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

inform:                         /* "memory=00003c00 modules=... processors=... family=... line=...": hexadecimal */
    mov $memory_is, %esi
    mov 8(%ebx), %ecx           /* KiB above 1 MiB */
    call put_field
    mov $modules_are, %esi
    mov 20(%ebx), %ecx
    call put_field
    mov $processors_are, %esi
    mov $0x510, %dx             /* fw_cfg, item 5 */
    mov $5, %ax
    out %ax, %dx
    inc %dx
    in %dx, %al
    movzbl %al, %ecx
    call put_field
    push %ebx
    mov $1, %eax
    cpuid
    pop %ebx
    mov %eax, %ecx
    and $0xff0, %ecx
    mov $family_is, %esi
    call put_field
    mov $line_is, %esi
    call put_text
    mov 16(%ebx), %esi
    call put_text
    mov $end_of_line, %esi
    call put_text
    jmp power_off

put_field:                      /* the text at esi, then ecx */
    call put_text
    mov $8, %ebp
1:  rol $4, %ecx
    mov %cl, %al
    and $15, %al
    add $'0', %al
    cmp $'9', %al
    jbe 2f
    add $'a' - '0' - 10, %al
2:  call put_both
    dec %ebp
    jnz 1b
    ret
put_text:
    lodsb
    test %al, %al
    jz 1f
    call put_both
    jmp put_text
1:  ret
put_both:
    out %al, $0xe9
    push %ebx
    call put
    pop %ebx
    ret

undefined:
    .byte 0x0f, 0x01, 0xc1      /* VMCALL */
    jmp triple_fault

read_nothing:
    mov $0x1234, %dx
    in %dx, %ax
    jmp power_off

wild:                           /* esi: the state of a generator that begins anywhere */
    rdtsc
    mov %eax, %esi
1:  imul $1664525, %esi
    add $1013904223, %esi
    mov %esi, %edx
    shr $16, %edx
    mov %esi, %eax
    rol $7, %eax
    test $0x40, %al
    jz 2f
    and $0x7ff, %edx            /* where most chips are */
2:  out %al, %dx
    in %dx, %al
    out %ax, %dx
    in %dx, %ax
    out %eax, %dx
    in %dx, %eax
    mov %esi, %ebx
    shr $12, %ebx
    and $0xff0, %ebx
    mov %esi, %eax
    rol $13, %eax
    mov %eax, 0xfee00000(%ebx)
    mov %eax, 0xfec00000(%ebx)
    mov %eax, 0xfed00000(%ebx)
    mov 0xfee00000(%ebx), %ecx
    jmp 1b

use_paging:                     /* one 4 MiB page */
    movl $0x83, directory
    mov %cr4, %eax
    or $0x10, %eax
    mov %eax, %cr4
    mov $directory, %eax
    mov %eax, %cr3
    mov %cr0, %eax
    or $0x80000000, %eax
    mov %eax, %cr0
    incl counter
    and $0x7fffffff, %eax
    mov %eax, %cr0
    jmp power_off

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
memory_is:
    .asciz "memory="
modules_are:
    .asciz " modules="
processors_are:
    .asciz " processors="
family_is:
    .asciz " family="
line_is:
    .asciz " line="
end_of_line:
    .asciz ".\n"
    .balign 4
counter:
    .long 0
    .skip 256
stack_top:
    .balign 4096
directory:
    .skip 4096
