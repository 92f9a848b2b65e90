/* What the engine's own decoder and rules make of the encoding space. */
#ifndef TESTS_DECODED_FORMS_H
#define TESTS_DECODED_FORMS_H

#include "tests/coverage/forms.h"
#include "translator/translation.h"

/* A decoder for a processor that has every feature, whatever the host is. NULL: no memory. */
struct decoder *decoded_forms_decoder(void);
/* Mode key of flat protected-mode code (64: long mode) with all of the vector state enabled. */
uint32_t decoded_forms_key(unsigned bits);
/* Equal for instructions of the same mnemonic, encoding, attributes and kinds of operands. */
uint64_t decoded_forms_hash(const struct instruction *in);
bool decoded_forms_has_memory(const struct instruction *in);

#endif
