/* The widest vectors of the processor that is compiled for, and what all kernels do with them. */

#ifndef ANYTASK_VECTOR_H
#define ANYTASK_VECTOR_H

#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef __AVX512F__
#define LANES 16
#else
#define LANES 8
#endif

#ifdef __clang__
#error "GCC is needed: its OpenMP is torch's"
#endif

/* Elements from which on a loop is shared among OpenMP's threads, as in torch. */
#define WORTH_SHARING 32768

#define CACHE_LINE 64

#define INLINE static inline __attribute__((always_inline))

typedef float vector __attribute__((vector_size(4 * LANES)));
typedef int32_t whole_vector __attribute__((vector_size(4 * LANES)));

/* Added to a float between -2^22 and 2^22, it rounds to the next whole number and has that in its low bits. */
static const float WHOLE = 12582912.0f;

INLINE vector load(const float *from) {
    vector v;
    memcpy(&v, from, sizeof v);
    return v;
}

/* The first `count` floats, and zeros behind them. */
INLINE vector load_some(const float *from, long count) {
    vector v = {0};
    memcpy(&v, from, count * sizeof *from);
    return v;
}

INLINE void store(float *to, vector v) { memcpy(to, &v, sizeof v); }

INLINE vector all(float value) { return (vector){0} + value; }

INLINE vector choose(whole_vector first, vector a, vector b) {
    return (vector)(((whole_vector)a & first) | ((whole_vector)b & ~first));
}

/* Of NaN and a number, the second. */
#if LANES == 16
INLINE vector larger(vector a, vector b) { return (vector)_mm512_max_ps((__m512)a, (__m512)b); }
INLINE vector smaller(vector a, vector b) { return (vector)_mm512_min_ps((__m512)a, (__m512)b); }
#else
INLINE vector larger(vector a, vector b) { return (vector)_mm256_max_ps((__m256)a, (__m256)b); }
INLINE vector smaller(vector a, vector b) { return (vector)_mm256_min_ps((__m256)a, (__m256)b); }
#endif

/* Lanes change places with those so many further on: joined with itself so, a vector is reduced in a few steps. */
#if LANES == 16
#define PLACES(by) 0 ^ by, 1 ^ by, 2 ^ by, 3 ^ by, 4 ^ by, 5 ^ by, 6 ^ by, 7 ^ by, \
    8 ^ by, 9 ^ by, 10 ^ by, 11 ^ by, 12 ^ by, 13 ^ by, 14 ^ by, 15 ^ by
#else
#define PLACES(by) 0 ^ by, 1 ^ by, 2 ^ by, 3 ^ by, 4 ^ by, 5 ^ by, 6 ^ by, 7 ^ by
#endif
#define SWAPPED(v, by) __builtin_shuffle(v, (whole_vector){PLACES(by)})

INLINE long rounded_up(long count) { return (count + LANES - 1) / LANES * LANES; }

INLINE float largest_of(vector v) {
    if (LANES > 8) v = larger(v, SWAPPED(v, LANES / 2));
    v = larger(v, SWAPPED(v, 4));
    v = larger(v, SWAPPED(v, 2));
    return larger(v, SWAPPED(v, 1))[0];
}

INLINE float sum_of(vector v) {
    if (LANES > 8) v += SWAPPED(v, LANES / 2);
    v += SWAPPED(v, 4);
    v += SWAPPED(v, 2);
    v += SWAPPED(v, 1);
    return v[0];
}

#endif
