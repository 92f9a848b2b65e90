/* The options of QEMU 7.2 that Trapeze does not have, with what comes nearest. */
#ifndef TOOLS_OPTION_UNSUPPORTED_H
#define TOOLS_OPTION_UNSUPPORTED_H

struct option_unsupported {
    const char *name;    /* without its dash */
    const char *nearest; /* what Trapeze has, in its spelling; NULL: nothing comes near */
};

/* NULL where QEMU has no such option, or Trapeze has it too. */
const struct option_unsupported *option_unsupported_find(const char *name);
/* The k-th row; NULL past the last. */
const struct option_unsupported *option_unsupported_at(unsigned k);

#endif
