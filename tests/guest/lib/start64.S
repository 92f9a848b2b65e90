/*
 * Entry of 64-bit programs: multiboot 1 header, long mode with the first 4 GiB mapped one to one by 2 MiB pages, the
 * first 64 MiB once more for CPL 3, descriptor tables, then main(). Other processors come in through ap_trampoline.
 */
.section .multiboot, "a"
.align 4
.long 0x1BADB002, 3, -(0x1BADB002 + 3)

.text
.code32
.globl start
start:
    cli
    cld
    mov $boot_stack_top, %esp
    mov %ebx, multiboot_info
    /* 4 page directories of 2 MiB pages */
    mov $boot_pd, %edi
    mov $0x83, %eax
    xor %ecx, %ecx
1:  mov %eax, (%edi,%ecx,8)
    add $0x200000, %eax
    inc %ecx
    cmp $2048, %ecx
    jb 1b
    /* the alias of the first 64 MiB at 4 GiB, user */
    mov $boot_pd + 4 * 4096, %edi
    mov $0x87, %eax
    xor %ecx, %ecx
1:  mov %eax, (%edi,%ecx,8)
    add $0x200000, %eax
    inc %ecx
    cmp $32, %ecx
    jb 1b
    mov $boot_pd + 7, %eax
    xor %ecx, %ecx
1:  mov %eax, boot_pdpt(,%ecx,8)
    add $4096, %eax
    inc %ecx
    cmp $5, %ecx
    jb 1b
    movl $boot_pdpt + 7, boot_pml4
    call long_mode_enable
    lgdt gdt_pointer
    ljmp $0x08, $start64

/* CR3, CR4.PAE|OSFXSR|OSXMMEXCPT, EFER.LME|NXE, CR0.PG|WP|NE|MP */
long_mode_enable:
    mov $0x620, %eax
    mov %eax, %cr4
    mov $boot_pml4, %eax
    mov %eax, %cr3
    mov $0xc0000080, %ecx
    rdmsr
    or $0x900, %eax
    wrmsr
    mov $0x80010033, %eax
    mov %eax, %cr0
    ret

.code64
start64:
    mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    xor %eax, %eax
    mov %eax, %fs
    mov %eax, %gs
    mov $boot_stack_top, %rsp
    call traps_init
    fninit
    call main
    call finish

/* Copied to 8000h; a processor that got a SIPI starts here in real mode. */
.globl ap_trampoline, ap_trampoline_end
.code16
ap_trampoline:
    cli
    cs lgdtl ap_gdt_pointer - ap_trampoline
    mov $1, %eax
    mov %eax, %cr0
    ljmpl $0x18, $ap32
ap_gdt_pointer:
    .word 0xffff
    .long gdt
ap_trampoline_end:

.code32
ap32:
    mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov ap_stack, %esp
    call long_mode_enable
    ljmp $0x08, $ap64
.code64
ap64:
    mov ap_stack, %rsp
    fninit
    mov ap_root, %rax
    mov %rax, %cr3
    call ap_main
1:  cli
    hlt
    jmp 1b

.data
.globl gdt_pointer, gdt, gdt_end
.align 16
gdt:
    .quad 0
    .quad 0x00af9b000000ffff /* 08 64-bit code */
    .quad 0x00cf93000000ffff /* 10 data */
    .quad 0x00cf9b000000ffff /* 18 32-bit code */
    .quad 0x00cffb000000ffff /* 23 32-bit code, DPL 3 */
    .quad 0x00cff3000000ffff /* 2b data, DPL 3 */
    .quad 0x00affb000000ffff /* 33 64-bit code, DPL 3 */
    .quad 0x000f9b000000ffff /* 38 16-bit code, limit fffffh */
    .quad 0x000f93000000ffff /* 40 16-bit data, limit fffffh */
    .quad 0, 0, 0            /* 48, 50, 58 for tests */
    .fill 32, 8, 0           /* 60 + 16 n: TSS of processor n */
gdt_end:
gdt_pointer:
    .word gdt_end - gdt - 1
    .quad gdt

.bss
.align 4096
.globl boot_pml4, ap_stack, ap_root, snippet_stack_top, multiboot_info
boot_pml4: .skip 4096
boot_pdpt: .skip 4096
boot_pd: .skip 4096 * 5
boot_stack: .skip 32768
boot_stack_top:
    .skip 4096
snippet_stack: .skip 16384
snippet_stack_top:
    .skip 4096
ap_stack: .skip 8
ap_root: .skip 8
multiboot_info: .skip 4
.section .note.GNU-stack, "", @progbits
