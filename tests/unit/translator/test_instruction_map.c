/* translator/instruction_map.h: what is read is what was packed, whatever the distances. */
#include <check.h>
#include <stdlib.h>

#include "translator/instruction_map.h"

enum { MOST = 256 };

/* Packs and reads, and answers with the number of words. */
static unsigned there_and_back(const struct instruction_map *map, unsigned count) {
    static uint16_t words[MAP_WORDS_MOST * MOST + 1];
    words[MAP_WORDS_MOST * count] = 0x1234;
    unsigned used = map_pack(words, map, count), wrong = 0;
    ck_assert_uint_le(used, MAP_WORDS_MOST * count);
    ck_assert_uint_eq(words[MAP_WORDS_MOST * count], 0x1234);
    struct map_reader reader = map_read(words, count);
    for (unsigned i = 0; i < count; i++)
        wrong += !map_next(&reader) || reader.now.host != map[i].host || reader.now.guest != map[i].guest ||
                 reader.now.stack != map[i].stack;
    ck_assert_uint_eq(wrong, 0);
    ck_assert(!map_next(&reader));
    ck_assert_ptr_eq(reader.at, words + used);
    return used;
}

START_TEST(plain_code_takes_a_word_for_each_instruction) {
    struct instruction_map map[64];
    for (unsigned i = 0; i < 64; i++)
        map[i] = (struct instruction_map){(uint16_t)(9 * i), (uint16_t)(5 * i), 0};
    ck_assert_uint_eq(there_and_back(map, 64), 64);
}
END_TEST

START_TEST(pushes_and_pops_take_a_word_each) {
    struct instruction_map map[14];
    for (int i = 0; i < 14; i++)
        map[i] = (struct instruction_map){(uint16_t)(12 * i), (uint16_t)(2 * i), (int16_t)(i < 7 ? 8 * i : -8 * (14 - i))};
    ck_assert_uint_eq(there_and_back(map, 14), 14 + 3); /* 6 * 8 to -7 * 8 is too far */
}
END_TEST

START_TEST(every_edge_of_the_fields_comes_back) {
    static const int host[] = {0, 1, 254, 255, 256, 257, 4000, 65535}, guest[] = {0, 1, 14, 15, 16, 4095, -1, -15},
                     stack[] = {0, 8, -8, 56, 64, -64, -72, 4, -1, 32767, -32768};
    for (unsigned h = 0; h < sizeof host / sizeof *host; h++)
        for (unsigned g = 0; g < sizeof guest / sizeof *guest; g++)
            for (unsigned s = 0; s < sizeof stack / sizeof *stack; s++) {
                struct instruction_map map[] = {
                    {0, 100, 0}, {(uint16_t)host[h], (uint16_t)(100 + guest[g]), (int16_t)stack[s]}, {65535, 0, 0}};
                there_and_back(map, 3);
            }
}
END_TEST

START_TEST(any_map_comes_back) {
    srand(5);
    for (unsigned round = 0; round < 2000; round++) {
        struct instruction_map map[MOST] = {0};
        unsigned count = (unsigned)rand() % MOST;
        for (unsigned i = 1; i < count; i++) {
            int is_wild = rand() % 16 == 0;
            map[i].host = (uint16_t)(map[i - 1].host + rand() % (is_wild ? 65536 : 300));
            map[i].guest = (uint16_t)(map[i - 1].guest + (is_wild ? rand() % 65536 : rand() % 18));
            map[i].stack = (int16_t)(is_wild ? rand() % 65536 - 32768 : rand() % 20 * 8 - 80);
        }
        there_and_back(map, count);
    }
}
END_TEST

int main(void) {
    Suite *suite = suite_create("instruction map");
    TCase *tcase = tcase_create("pack");
    tcase_add_test(tcase, plain_code_takes_a_word_for_each_instruction);
    tcase_add_test(tcase, pushes_and_pops_take_a_word_each);
    tcase_add_test(tcase, every_edge_of_the_fields_comes_back);
    tcase_add_test(tcase, any_map_comes_back);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
