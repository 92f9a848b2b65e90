/* Processor models and CPUID: cpu/model.c, cpu/model_table.c, cpu/cpuid.c. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/model_internal.h"
#include "fake_cpu.h"

static char error[160], warnings[4096];

static void note_warning(void *opaque, const char *line) {
    (void)opaque;
    strncat(warnings, line, sizeof warnings - strlen(warnings) - 2);
    strcat(warnings, "\n");
}

static struct cpu_model *make(const char *text, unsigned vcpus) {
    error[0] = warnings[0] = 0;
    return cpu_model_create(text, vcpus, error, sizeof error, note_warning, NULL);
}

static uint32_t cpuid(const struct cpu_model *model, uint32_t leaf, uint32_t subleaf, unsigned reg) {
    struct cpu *cpu = aligned_alloc(64, (sizeof *cpu + 63) & ~63ull);
    uint32_t out[4];
    memset(cpu, 0, sizeof *cpu);
    cpu->model = model;
    cpu->index = 1;
    cpu->xcr0 = 1;
    cpu_cpuid(cpu, leaf, subleaf, out);
    free(cpu);
    return out[reg];
}

START_TEST(host_model_offers_nothing_that_the_engine_cannot_run) {
    struct cpu_model *model = make(NULL, 1);
    ck_assert_ptr_nonnull(model);
    ck_assert_uint_eq(cpuid(model, 1, 0, 2) & (1u << 5 | 1u << 6 | 1u << 3), 0);            /* VMX, SMX, MONITOR */
    ck_assert_uint_eq(cpuid(model, 7, 0, 1) & (1u << 4 | 1u << 11 | 1u << 14 | 1u << 2), 0); /* HLE, RTM, MPX, SGX */
    ck_assert_uint_eq(cpuid(model, 7, 0, 2) & (1u << 3 | 1u << 7 | 1u << 16 | 1u << 5), 0); /* PKU, CET, LA57 */
    ck_assert_uint_eq(cpuid(model, 7, 0, 3) & (1u << 22 | 1u << 24 | 1u << 25), 0);           /* AMX */
    ck_assert_uint_eq(cpuid(model, 0xa, 0, 0), 0);
    ck_assert_uint_eq(cpuid(model, 0xd, 0, 0) & ~0xe7u, 0);
    ck_assert_uint_eq(cpuid(model, 1, 0, 2) >> 31, 1);
    cpu_model_destroy(model);
}
END_TEST

START_TEST(host_model_has_the_hosts_vector_extensions) {
    struct cpu_model *model = make("host", 1);
    ck_assert_int_eq(cpu_model_has(model, FEATURE_AVX2), host_has(FEATURE_AVX2));
    ck_assert_int_eq(cpu_model_has(model, FEATURE_AVX512F), host_has(FEATURE_AVX512F));
    ck_assert_int_eq(cpu_model_has(model, FEATURE_SHA), host_has(FEATURE_SHA));
    ck_assert_uint_eq(cpuid(model, 0, 0, 1), host_cpuid(0, 0).ebx);
    ck_assert_uint_eq(cpuid(model, 1, 0, 0) & 0xfff0ff0, host_cpuid(1, 0).eax & 0xfff0ff0);
    ck_assert_str_eq(warnings, "");
    cpu_model_destroy(model);
}
END_TEST

START_TEST(every_name_makes_a_model_without_dangling_features) {
    for (unsigned k = 0; cpu_model_name(k); k++) {
        struct cpu_model *model = make(cpu_model_name(k), 2);
        ck_assert_msg(model, "%s: %s", cpu_model_name(k), error);
        for (unsigned i = 1; i < FEATURE_COUNT; i++)
            for (unsigned n = 0; cpu_model_has(model, i) && n < 3 && cpu_feature_table[i].needs[n]; n++)
                ck_assert_msg(cpu_model_has(model, cpu_feature_table[i].needs[n]), "%s: %s", cpu_model_name(k),
                              cpu_feature_table[i].name);
        cpu_model_destroy(model);
    }
}
END_TEST

START_TEST(feature_table_has_each_bit_and_name_once) {
    for (unsigned i = 1; i < FEATURE_COUNT; i++) {
        const struct feature_row *a = &cpu_feature_table[i];
        ck_assert_msg(a->name || a->origin == ORIGIN_STATE, "feature %u has no row", i);
        for (unsigned k = i + 1; k < FEATURE_COUNT; k++) {
            const struct feature_row *b = &cpu_feature_table[k];
            ck_assert_msg(a->word != b->word || a->bit != b->bit, "%s and %s", a->name, b->name);
            ck_assert(!a->name || !b->name || strcmp(a->name, b->name));
        }
    }
}
END_TEST

START_TEST(named_models_are_as_old_as_their_names) {
    struct cpu_model *model = make("486", 1);
    ck_assert_uint_eq(cpuid(model, 0, 0, 0), 1);
    ck_assert_uint_eq(cpuid(model, 1, 0, 0) >> 8 & 15, 4);
    ck_assert(!cpu_model_has(model, FEATURE_TSC) && !cpu_model_has(model, FEATURE_CX8));
    ck_assert_uint_eq(cpu_model_physical_bits(model), 32);
    cpu_model_destroy(model);
    model = make("pentium3", 1);
    ck_assert(cpu_model_has(model, FEATURE_SSE) && !cpu_model_has(model, FEATURE_SSE2));
    ck_assert(!cpu_model_has(model, FEATURE_LM));
    ck_assert_uint_eq(cpu_model_physical_bits(model), 36);
    ck_assert_uint_eq(cpuid(model, 1, 0, 0), 0x673);
    cpu_model_destroy(model);
    model = make("qemu64", 1);
    ck_assert(cpu_model_has(model, FEATURE_LM) && cpu_model_has(model, FEATURE_NX));
    ck_assert_uint_eq(cpuid(model, 1, 0, 0), 0x00060fb1);
    ck_assert_uint_eq(cpuid(model, 0x80000001, 0, 3) & 0x0183f3ff, cpuid(model, 1, 0, 3) & 0x0183f3ff);
    cpu_model_destroy(model);
    model = make("Opteron_G1", 1);
    ck_assert_uint_eq(cpuid(model, 1, 0, 0), 0x00000f61);
    ck_assert(cpu_model_has(model, FEATURE_SYSCALL) && cpu_model_has(model, FEATURE_SSE3));
    ck_assert(!cpu_model_has(model, FEATURE_CX16) && !cpu_model_has(model, FEATURE_LAHF64));
    cpu_model_destroy(model);
}
END_TEST

START_TEST(taking_a_feature_takes_what_builds_on_it) {
    struct cpu_model *model = make("host,-avx", 1);
    static const uint8_t gone[] = {FEATURE_AVX, FEATURE_AVX2, FEATURE_FMA, FEATURE_F16C, FEATURE_AVX512F,
                                   FEATURE_AVX512VL, FEATURE_VAES, FEATURE_AVX512FP16};
    for (unsigned i = 0; i < sizeof gone; i++)
        ck_assert(!cpu_model_has(model, gone[i]));
    ck_assert_uint_eq(cpu_model_xcr0(model) & ~3ull, 0);
    cpu_model_destroy(model);
    model = make("host,xsave=off", 1);
    ck_assert(!cpu_model_has(model, FEATURE_AVX) && !cpu_model_has(model, FEATURE_XSAVES));
    ck_assert_uint_eq(cpu_model_cr4(model) & CR4_OSXSAVE, 0);
    ck_assert_uint_eq(cpu_model_xcr0(model), 0);
    cpu_model_destroy(model);
    model = make("host,-lm", 1);
    ck_assert_uint_eq(cpu_model_efer(model) & EFER_LME, 0);
    ck_assert(!cpu_model_has(model, FEATURE_PCID));
    cpu_model_destroy(model);
}
END_TEST

START_TEST(feature_names_take_every_spelling_of_qemu) {
    static const char *const texts[] = {"host,-sse4.2", "host,-sse4_2", "host,-sse4-2", "host,sse4_2=off",
                                        "host,sse4.2=no"};
    for (unsigned i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct cpu_model *model = make(texts[i], 1);
        ck_assert_msg(model, "%s: %s", texts[i], error);
        ck_assert(!cpu_model_has(model, FEATURE_SSE42) && cpu_model_has(model, FEATURE_SSE41));
        cpu_model_destroy(model);
    }
    struct cpu_model *model = make("pentium3,+sse2,x2apic", 1);
    ck_assert(cpu_model_has(model, FEATURE_SSE2) && cpu_model_has(model, FEATURE_X2APIC));
    cpu_model_destroy(model);
}
END_TEST

START_TEST(unknown_names_are_errors_that_name_them) {
    ck_assert_ptr_null(make("pentium9", 1));
    ck_assert_ptr_nonnull(strstr(error, "pentium9"));
    ck_assert_ptr_null(make("host,+flux-capacitor", 1));
    ck_assert_ptr_nonnull(strstr(error, "flux-capacitor"));
    ck_assert_ptr_null(make("host,flux=on", 1));
    ck_assert_ptr_nonnull(strstr(error, "flux"));
    ck_assert_ptr_null(make("host,avx=maybe", 1));
    ck_assert_ptr_nonnull(strstr(error, "maybe"));
    ck_assert_ptr_null(make("host,family=70000", 1));
    ck_assert_ptr_nonnull(strstr(error, "family"));
    ck_assert_ptr_null(make("host,stepping=-1", 1));
    ck_assert_ptr_null(make("host,vendor=me", 1));
    ck_assert_ptr_null(make("", 1));
    ck_assert_ptr_null(make("host,+hypervisor=x", 1));
}
END_TEST

START_TEST(features_beyond_the_engine_are_warned_of_and_stay_off) {
    struct cpu_model *model = make("host,+vmx", 1);
    ck_assert_ptr_nonnull(strstr(warnings, "vmx"));
    ck_assert_uint_eq(cpuid(model, 1, 0, 2) & 1u << 5, 0);
    cpu_model_destroy(model);
    model = make("host,-vmx,svm=off", 1);
    ck_assert_ptr_nonnull(model);
    ck_assert_str_eq(warnings, "");
    cpu_model_destroy(model);
    ck_assert_ptr_null(make("host,enforce,+vmx", 1));
    model = make("pentium3,+avx", 1);
    ck_assert_ptr_nonnull(strstr(warnings, "avx"));
    ck_assert(!cpu_model_has(model, FEATURE_AVX));
    cpu_model_destroy(model);
}
END_TEST

START_TEST(properties_change_the_signature) {
    struct cpu_model *model = make("host,family=6,model=0x1a,stepping=5,vendor=GenuineIntel,model-id=Some chip", 1);
    ck_assert_msg(model, "%s", error);
    ck_assert_uint_eq(cpuid(model, 1, 0, 0), 0x000106a5);
    ck_assert_uint_eq(cpuid(model, 0, 0, 1), 0x756e6547);
    ck_assert_uint_eq(cpuid(model, 0x80000002, 0, 0), 0x656d6f53);
    cpu_model_destroy(model);
    model = make("host,family=25,phys-bits=40", 1);
    ck_assert_uint_eq(cpuid(model, 1, 0, 0) >> 20 & 0xff, 10);
    ck_assert_uint_eq(cpuid(model, 1, 0, 0) >> 8 & 15, 15);
    ck_assert_uint_eq(cpuid(model, 0x80000008, 0, 0) & 0xff, 40);
    cpu_model_destroy(model);
}
END_TEST

START_TEST(topology_is_one_socket_of_cores) {
    struct cpu_model *model = make("Haswell,vendor=GenuineIntel", 6);
    ck_assert_uint_eq(cpuid(model, 1, 0, 1) >> 16 & 0xff, 8);
    ck_assert_uint_eq(cpuid(model, 1, 0, 1) >> 24, 1);
    ck_assert_uint_eq(cpuid(model, 1, 0, 3) >> 28 & 1, 1);
    ck_assert_uint_eq(cpuid(model, 4, 0, 0) >> 26, 7);
    ck_assert_uint_eq(cpuid(model, 4, 0, 0) >> 14 & 0xfff, 0);
    ck_assert_uint_eq(cpuid(model, 4, 3, 0) >> 14 & 0xfff, 7);
    ck_assert_uint_eq(cpuid(model, 0xb, 0, 1), 1);
    ck_assert_uint_eq(cpuid(model, 0xb, 1, 0), 3);
    ck_assert_uint_eq(cpuid(model, 0xb, 1, 1), 6);
    ck_assert_uint_eq(cpuid(model, 0xb, 1, 2), 0x201);
    ck_assert_uint_eq(cpuid(model, 0xb, 2, 1), 0);
    ck_assert_uint_eq(cpuid(model, 0xb, 2, 3), 1);
    cpu_model_destroy(model);
    model = make("EPYC", 4);
    ck_assert_uint_eq(cpuid(model, 0x80000008, 0, 2), 0x2003);
    ck_assert_uint_eq(cpuid(model, 0x8000001e, 0, 0), 1);
    ck_assert_uint_eq(cpuid(model, 0x80000001, 0, 2) >> 1 & 1, 1);
    ck_assert_uint_eq(cpuid(model, 4, 0, 0), 0);
    cpu_model_destroy(model);
}
END_TEST

START_TEST(xstate_sizes_follow_xcr0) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_LONG0, "host");
    uint32_t out[4];
    if (!cpu_has(&fake->cpu, FEATURE_AVX)) {
        fake_cpu_destroy(fake);
        return;
    }
    fake->cpu.xcr0 = 3;
    cpu_cpuid(&fake->cpu, 0xd, 0, out);
    ck_assert_uint_eq(out[1], 576);
    fake->cpu.xcr0 = 7;
    cpu_cpuid(&fake->cpu, 0xd, 0, out);
    ck_assert_uint_eq(out[1], 832);
    cpu_cpuid(&fake->cpu, 0xd, 2, out);
    ck_assert_uint_eq(out[0], 256);
    ck_assert_uint_eq(out[1], 576);
    ck_assert_uint_le(out[2], 2);
    cpu_cpuid(&fake->cpu, 0xd, 9, out);
    ck_assert_uint_eq(out[0] | out[1] | out[2] | out[3], 0);
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(state_bits_follow_the_vcpu) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_LONG0, "host");
    uint32_t out[4];
    cpu_cpuid(&fake->cpu, 1, 0, out);
    ck_assert_uint_eq(out[2] >> 27 & 1, 0);
    ck_assert_uint_eq(out[3] >> 9 & 1, 1);
    fake->cpu.cr4 |= CR4_OSXSAVE;
    fake->cpu.apic_disabled = true;
    cpu_cpuid(&fake->cpu, 1, 0, out);
    ck_assert_uint_eq(out[2] >> 27 & 1, 1);
    ck_assert_uint_eq(out[3] >> 9 & 1, 0);
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(leaves_past_the_last_are_intels_last_or_amds_nothing) {
    struct cpu_model *model = make("Haswell", 1);
    ck_assert_uint_eq(cpuid(model, 0x7fffffff, 0, 0), cpuid(model, 0xd, 0, 0));
    ck_assert_uint_eq(cpuid(model, 0x80001000, 0, 2), cpuid(model, 0xd, 0, 2));
    cpu_model_destroy(model);
    model = make("EPYC", 1);
    for (unsigned reg = 0; reg < 4; reg++)
        ck_assert_uint_eq(cpuid(model, 0x7fffffff, 0, reg), 0);
    cpu_model_destroy(model);
}
END_TEST

START_TEST(frequencies_agree_and_fit_linux_arithmetic) {
    struct cpu_model *model = make("host", 1);
    uint64_t hz = cpu_model_tsc_hz(model);
    ck_assert_uint_gt(hz, 100000000);
    ck_assert_uint_lt(hz, 10000000000);
    uint32_t denominator = model->ratio_denominator, numerator = model->ratio_numerator;
    uint32_t khz = CPU_MODEL_BUS_HZ / 1000 * numerator / denominator; /* in 32 bits, as Linux does */
    ck_assert_uint_le((uint64_t)(CPU_MODEL_BUS_HZ / 1000) * numerator, 0xffffffff);
    int64_t difference = (int64_t)khz * 1000 - (int64_t)hz;
    /* What a numerator of at most 4294 can do, for whatever frequency the host was found to have. */
    ck_assert_msg(labs(difference) < (int64_t)(hz / 8000), "%lld of %llu", (long long)difference,
                  (unsigned long long)hz);
    ck_assert_uint_eq(cpuid(model, 0x40000010, 0, 0), hz / 1000);
    ck_assert_uint_eq(cpuid(model, 0x40000010, 0, 1), CPU_MODEL_BUS_HZ / 1000);
    cpu_model_destroy(model);
}
END_TEST

START_TEST(names_of_features_are_accepted) {
    unsigned count = 0;
    for (const char *name; (name = cpu_model_feature_name(count)); count++) {
        char text[64];
        snprintf(text, sizeof text, "host,-%s", name);
        struct cpu_model *model = make(text, 1);
        ck_assert_msg(model, "%s", error);
        cpu_model_destroy(model);
    }
    ck_assert_uint_gt(count, 60);
}
END_TEST

int main(void) {
    TCase *tests = tcase_create("model");
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, host_model_offers_nothing_that_the_engine_cannot_run);
    tcase_add_test(tests, host_model_has_the_hosts_vector_extensions);
    tcase_add_test(tests, every_name_makes_a_model_without_dangling_features);
    tcase_add_test(tests, feature_table_has_each_bit_and_name_once);
    tcase_add_test(tests, named_models_are_as_old_as_their_names);
    tcase_add_test(tests, taking_a_feature_takes_what_builds_on_it);
    tcase_add_test(tests, feature_names_take_every_spelling_of_qemu);
    tcase_add_test(tests, unknown_names_are_errors_that_name_them);
    tcase_add_test(tests, features_beyond_the_engine_are_warned_of_and_stay_off);
    tcase_add_test(tests, properties_change_the_signature);
    tcase_add_test(tests, topology_is_one_socket_of_cores);
    tcase_add_test(tests, xstate_sizes_follow_xcr0);
    tcase_add_test(tests, state_bits_follow_the_vcpu);
    tcase_add_test(tests, leaves_past_the_last_are_intels_last_or_amds_nothing);
    tcase_add_test(tests, frequencies_agree_and_fit_linux_arithmetic);
    tcase_add_test(tests, names_of_features_are_accepted);
    return fake_cpu_run(tests);
}
