/*
 * Entry of 32-bit programs: multiboot 1 header, flat protected mode with paging off, descriptor tables, then main().
 */
.section .multiboot, "a"
.align 4
.long 0x1BADB002, 3, -(0x1BADB002 + 3)

.text
.globl start
start:
    cli
    cld
    mov $boot_stack_top, %esp
    mov %ebx, multiboot_info
    lgdt gdt_pointer
    ljmp $0x08, $1f
1:  mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov %eax, %fs
    mov %eax, %gs
    mov $0x600, %eax
    mov %eax, %cr4
    mov $0x00000033, %eax
    mov %eax, %cr0
    call traps_init
    fninit
    call main
    call finish

.data
.globl gdt_pointer, gdt, gdt_end
.align 16
gdt:
    .quad 0
    .quad 0x00cf9b000000ffff /* 08 code */
    .quad 0x00cf93000000ffff /* 10 data */
    .quad 0x00cffb000000ffff /* 1b code, DPL 3 */
    .quad 0x00cff3000000ffff /* 23 data, DPL 3 */
    .quad 0x00009b000000ffff /* 28 16-bit code, limit ffffh */
    .quad 0x000093000000ffff /* 30 16-bit data, limit ffffh */
    .quad 0                  /* 38 TSS */
    .fill 24, 8, 0           /* 40 and up for tests */
gdt_end:
gdt_pointer:
    .word gdt_end - gdt - 1
    .long gdt

.bss
.align 4096
.globl snippet_stack_top, multiboot_info, trap_stack_top, boot_stack_top
boot_stack: .skip 32768
boot_stack_top:
    .skip 4096
trap_stack: .skip 16384
trap_stack_top:
    .skip 4096
snippet_stack: .skip 16384
snippet_stack_top:
    .skip 4096
multiboot_info: .skip 4
.section .note.GNU-stack, "", @progbits
