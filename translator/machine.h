/* What stands behind the public handles. */
#ifndef TRANSLATOR_MACHINE_H
#define TRANSLATOR_MACHINE_H

#include "translator/engine.h"

struct trapeze_machine {
    struct trapeze_config config;
    struct cpu_model *model;
    struct machine_memory memory;
    struct engine engine;
    struct trapeze_vcpu *vcpu[ENGINE_VCPUS];
};

struct trapeze_vcpu {
    struct trapeze_machine *machine;
    struct cpu *cpu;
    void *state;            /* the pages that hold *cpu */
    size_t state_size;
    void *shadow_stacks;
    atomic_bool running;
    struct trapeze_exit last_exit;
};

#endif
