/*
 * Constructors of faults: each fills in cpu->exception and answers CPU_FAULT, so that a check that fails is one return
 * statement. Error code formats are those of SDM vol. 3A, 6.13 (selectors) and 4.7 (page faults).
 */
#include "cpu/cpu.h"

enum cpu_result cpu_fault(struct cpu *cpu, enum cpu_vector vector) {
    cpu->exception = (struct cpu_exception){.vector = (uint8_t)vector};
    return CPU_FAULT;
}

enum cpu_result cpu_fault_code(struct cpu *cpu, enum cpu_vector vector, uint32_t error_code) {
    cpu->exception =
        (struct cpu_exception){.vector = (uint8_t)vector, .has_error_code = true, .error_code = error_code};
    return CPU_FAULT;
}

enum cpu_result cpu_fault_page(struct cpu *cpu, uint64_t linear, uint32_t error_code) {
    cpu_fault_code(cpu, VECTOR_PF, error_code);
    cpu->exception.cr2 = linear;
    return CPU_FAULT;
}

enum cpu_result cpu_fault_debug(struct cpu *cpu, uint64_t dr6_bits, bool is_trap) {
    cpu_fault(cpu, VECTOR_DB);
    cpu->exception.dr6 = dr6_bits;
    cpu->exception.is_trap = is_trap;
    return CPU_FAULT;
}
