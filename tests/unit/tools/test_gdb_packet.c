/* Framing of gdb's packets, both ways, and their numbers. */
#include "tools/gdb_packet.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

static struct gdb_reader reader;
static struct gdb_text text;
static char frame[GDB_PACKET_MAX + 4];

static void reset(void) {
    memset(&reader, 0, sizeof(reader));
    memset(&text, 0, sizeof(text));
}

/* Feeds all bytes; what the last one completed. */
static enum gdb_input take(const char *bytes, size_t count) {
    enum gdb_input input = GDB_NOTHING;
    for (size_t i = 0; i < count; i++)
        input = gdb_reader_take(&reader, (uint8_t)bytes[i]);
    return input;
}

START_TEST(packet_with_its_checksum_is_read) {
    reset();
    ck_assert_int_eq(take("$m12,4#8e", 9), GDB_DAMAGED);
    ck_assert_int_eq(take("$g#67", 5), GDB_PACKET);
    ck_assert_str_eq(reader.data, "g");
    ck_assert_uint_eq(reader.length, 1);
}
END_TEST

START_TEST(wrong_checksum_is_damage) {
    reset();
    ck_assert_int_eq(take("$g#68", 5), GDB_DAMAGED);
    ck_assert_int_eq(take("$g#x7", 5), GDB_DAMAGED);
    ck_assert_int_eq(take("$g#67", 5), GDB_PACKET);
}
END_TEST

START_TEST(escaped_bytes_come_back) {
    reset();
    ck_assert_int_eq(take("$X}\003#d8", 7), GDB_PACKET);
    ck_assert_uint_eq(reader.length, 2);
    ck_assert_int_eq(reader.data[1], '#');
}
END_TEST

START_TEST(bytes_between_packets_are_marks) {
    reset();
    ck_assert_int_eq(take("+", 1), GDB_ACK);
    ck_assert_int_eq(take("-", 1), GDB_NAK);
    ck_assert_int_eq(take("\003", 1), GDB_INTERRUPT);
    ck_assert_int_eq(take("x", 1), GDB_NOTHING);
}
END_TEST

START_TEST(packet_that_is_cut_off_gives_way_to_the_next) {
    reset();
    ck_assert_int_eq(take("$qSupp$g#67", 11), GDB_PACKET);
    ck_assert_str_eq(reader.data, "g");
}
END_TEST

START_TEST(packet_that_is_too_long_is_damage) {
    reset();
    take("$", 1);
    for (unsigned i = 0; i < GDB_PACKET_MAX + 10; i++)
        take("a", 1);
    ck_assert_int_eq(take("#00", 3), GDB_DAMAGED);
    ck_assert_int_eq(take("$g#67", 5), GDB_PACKET);
}
END_TEST

START_TEST(reply_is_framed_and_reads_back) {
    static const char binary[] = "a$b#c}d*e";
    reset();
    gdb_text_add(&text, "T%02x;", 5);
    gdb_text_add_hex(&text, "\x01\xfe", 2);
    gdb_text_add_binary(&text, binary, sizeof(binary) - 1);
    size_t length = gdb_text_frame(&text, frame);
    ck_assert_int_eq(take(frame, length), GDB_PACKET);
    ck_assert_str_eq(reader.data, "T05;01fea$b#c}d*e");
}
END_TEST

START_TEST(reply_that_does_not_fit_is_cut) {
    static char bytes[GDB_PACKET_MAX];
    reset();
    gdb_text_add_hex(&text, bytes, sizeof(bytes));
    ck_assert(text.is_full);
    ck_assert_uint_eq(text.length, GDB_PACKET_MAX);
    ck_assert_uint_eq(gdb_text_frame(&text, frame), GDB_PACKET_MAX + 4);
}
END_TEST

START_TEST(numbers_end_at_the_first_other_byte) {
    const char *cursor = "fF8,0";
    uint64_t number;
    ck_assert(gdb_parse_number(&cursor, &number));
    ck_assert_uint_eq(number, 0xff8);
    ck_assert(gdb_parse_word(&cursor, ","));
    ck_assert(gdb_parse_number(&cursor, &number));
    ck_assert_uint_eq(number, 0);
    ck_assert(!gdb_parse_number(&cursor, &number));
    cursor = "11112222333344445";
    ck_assert(!gdb_parse_number(&cursor, &number));
}
END_TEST

START_TEST(bytes_need_all_their_digits) {
    const char *cursor = "00ff8";
    uint8_t bytes[3];
    ck_assert(!gdb_parse_bytes(&cursor, bytes, 3));
    cursor = "00ff80";
    ck_assert(gdb_parse_bytes(&cursor, bytes, 3));
    ck_assert_mem_eq(bytes, "\x00\xff\x80", 3);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("gdb_packet");
    TCase *tcase = tcase_create("all");
    tcase_add_test(tcase, packet_with_its_checksum_is_read);
    tcase_add_test(tcase, wrong_checksum_is_damage);
    tcase_add_test(tcase, escaped_bytes_come_back);
    tcase_add_test(tcase, bytes_between_packets_are_marks);
    tcase_add_test(tcase, packet_that_is_cut_off_gives_way_to_the_next);
    tcase_add_test(tcase, packet_that_is_too_long_is_damage);
    tcase_add_test(tcase, reply_is_framed_and_reads_back);
    tcase_add_test(tcase, reply_that_does_not_fit_is_cut);
    tcase_add_test(tcase, numbers_end_at_the_first_other_byte);
    tcase_add_test(tcase, bytes_need_all_their_digits);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
