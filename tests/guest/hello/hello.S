/*
 * The smallest guest with a console: a multiboot 1 kernel that greets on COM1, gives back every key, and powers off on
 * 'q'. What quickstart boots where no Debian kernel can be had, and what the tests of the command boot.
 */
#define MULTIBOOT_MAGIC 0x1badb002 /* Multiboot 0.6.96, 3.1.1 */
#define COM1 0x3f8
#define LINE_STATUS (COM1 + 5)
#define RECEIVED 0x01
#define TRANSMIT_EMPTY 0x20
#define PM1_CONTROL 0x604
#define SLEEP_ENABLE_S5 0x2000 /* SLP_EN, with 0 as the sleep type of S5 */

        .text
        .balign 4
        .long MULTIBOOT_MAGIC, 0, -MULTIBOOT_MAGIC

        .globl _start
_start:
        cli
        mov $stack_top, %esp
        mov $greeting, %esi
next_character:
        lodsb
        test %al, %al
        jz read_key
        call transmit
        jmp next_character

read_key:
        mov $LINE_STATUS, %edx
        in %dx, %al
        pause
        test $RECEIVED, %al
        jz read_key
        mov $COM1, %edx
        in %dx, %al
        cmp $'q', %al
        je power_off
        call transmit
        cmp $'\r', %al
        jne read_key
        mov $'\n', %al
        call transmit
        jmp read_key

power_off:
        mov $PM1_CONTROL, %edx
        mov $SLEEP_ENABLE_S5, %eax
        out %ax, %dx
halt:   hlt
        jmp halt

/* al: the character; keeps everything but edx and ah. */
transmit:
        mov %al, %ah
        mov $LINE_STATUS, %edx
transmitter_busy:
        in %dx, %al
        test $TRANSMIT_EMPTY, %al
        jz transmitter_busy
        mov %ah, %al
        mov $COM1, %edx
        out %al, %dx
        ret

        .section .rodata
greeting:
        .asciz "Hello from a guest in protected mode. It gives back what you type; q powers it off.\r\n"

        .bss
        .balign 16
        .skip 1024
stack_top:

        .section .note.GNU-stack, "", @progbits
