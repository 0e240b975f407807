/* A function that is written once and compiled twice, for AVX2 and for any processor:
 *
 *     LB_INLINE void sum(...) { ... }
 *     LB_AVX2 static void sum_avx2(...) { sum(...); }
 *     static void sum_plain(...) { sum(...); }
 *     (LB_HAS_AVX2 ? sum_avx2 : sum_plain)(...);
 */
#ifndef LB_NN_AVX2_H
#define LB_NN_AVX2_H

#if defined(__x86_64__) && defined(__GNUC__)
#define LB_AVX2     __attribute__((target("avx2,fma")))
#define LB_HAS_AVX2 (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
#else
#define LB_AVX2
#define LB_HAS_AVX2 0
#endif
#define LB_INLINE __attribute__((always_inline)) static inline

#endif
