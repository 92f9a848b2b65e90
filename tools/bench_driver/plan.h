/* What is to be measured in one guest, as the command line says, and how a machine of it is started. */
#ifndef TOOLS_BENCH_DRIVER_PLAN_H
#define TOOLS_BENCH_DRIVER_PLAN_H

#include "tools/bench_driver/results.h"
#include "tools/bench_driver/session.h"

struct plan {
    const char *guest, *kernel;
    const char *initrd;             /* the agent and busybox alone: what boots are measured with */
    const char *programs_initrd;    /* with the packaged programs, too */
    const char *program;            /* the agent's native binary */
    const char *busybox;            /* natively; in the guest it is in /bin */
    const char *packages;           /* the folder of the packaged programs, natively */
    const char *folder;             /* for files of the native programs, in memory as in the guest */
    const char *nano;               /* the bare-metal program; NULL: not measured */
    const char *monitors[MACHINES]; /* commands; NULL: that machine is not measured */
    const char *memory_group;       /* a folder to make control groups in; NULL: none */
    const char *group;              /* NULL: all */
    bool has_growth;                /* by processes, code and virtual CPUs: only where it is asked for */
    unsigned most_mebibytes;        /* boots are measured up to that size of memory; 0: not at all */
    unsigned rounds, divide;        /* counts are divided by it */
};

/* Of a guest that is to be started. */
struct shape {
    const char *initrd;
    unsigned processors, mebibytes;
    bool is_measured; /* in a control group of its own */
};

bool plan_wants(const struct plan *plan, const char *group);

/* The same words for both monitors; NATIVE runs the agent itself, on one CPU where the shape has one. */
bool plan_start(const struct plan *plan, enum machine machine, const struct shape *shape, struct session *session);

/* Starts the bare-metal program. */
bool plan_start_nano(const struct plan *plan, enum machine machine, struct session *session);

/* Ends a session that did not do WHAT, and tells so: which guest, which machine, and how it ended. */
void plan_give_up(const struct plan *plan, enum machine machine, struct session *session, const char *what);

/* On a terminal: what is being measured now. */
void plan_tell_progress(const struct plan *plan, unsigned round, const char *name);

#endif
