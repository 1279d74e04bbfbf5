/* Float rows become bytes for an int8 product, in one reading of each row: see anytask/row_codes.py. */

#include <stdlib.h>

#include "vector.h"

/* `poison` is zero times every value: nothing, unless one isn't finite, which a peak may not show. */
INLINE float step_of(float peak, float poison, float zero, float smallest_step) {
    float step = peak / (255 - zero);
    return (step > smallest_step ? step : smallest_step) + poison;
}

INLINE void write_codes(const float *restrict x, long width, float step, float zero, uint8_t *restrict codes) {
    float steps_in_one = 1 / step;
#pragma omp simd
    for (long i = 0; i < width; i++) {
        float sum = x[i] * steps_in_one + (WHOLE + zero);
        int32_t bits;
        memcpy(&bits, &sum, sizeof bits);
        codes[i] = (uint8_t)bits;
    }
}

/* 0.5 x (1 + erf(x / sqrt 2)), to 1e-5 or 1e-6 of x: erf(z) = z p(z^2) up to z = 3.5, a least-maximum fit, and as
   there from there on. */
INLINE float gelu(float x) {
    x = x < -8 ? -8 : x;
    float z = x * 0.707106781f;
    z = z > 3.5f ? 3.5f : z;
    z = z < -3.5f ? -3.5f : z;
    float u = z * z * (2 / 12.25f) - 1;
    float p = -0.00339882945f;
    p = p * u + 0.00862190991f;
    p = p * u - 0.00869871807f;
    p = p * u + 0.0127155799f;
    p = p * u - 0.0287086226f;
    p = p * u + 0.0470905838f;
    p = p * u - 0.0652849184f;
    p = p * u + 0.0879561499f;
    p = p * u - 0.114532452f;
    p = p * u + 0.146784955f;
    p = p * u - 0.200704476f;
    p = p * u + 0.403872549f;
    return 0.5f * x + 0.5f * x * z * p;
}

/* x [rows, width] to codes, and each row's step. */
EXPORT int quantise(
    const float *restrict x, long rows, long width, float zero, float smallest_step,
    uint8_t *restrict codes, float *restrict steps
) {
    for (long row = 0; row < rows; row++, x += width, codes += width) {
        float peak = 0, poison = 0;
#pragma omp simd reduction(max : peak) reduction(+ : poison)
        for (long i = 0; i < width; i++) {
            float size = fabsf(x[i]);
            poison += 0 * size;
            peak = size > peak ? size : peak;
        }
        steps[row] = step_of(peak, poison, zero, smallest_step);
        write_codes(x, width, steps[row], zero, codes);
    }
    return 0;
}

/* GELU of x [rows, width] times each row's factor. */
EXPORT int quantise_gelu(
    const float *restrict x, const float *restrict factors, long rows, long width, float zero, float smallest_step,
    uint8_t *restrict codes, float *restrict steps
) {
    float *activated = malloc(width * sizeof *activated);
    if (!activated) return -1;
    for (long row = 0; row < rows; row++, x += width, codes += width) {
        float peak = 0, poison = 0, factor = factors[row];
#pragma omp simd reduction(max : peak) reduction(+ : poison)
        for (long i = 0; i < width; i++) {
            float value = gelu(x[i] * factor);
            activated[i] = value;
            poison += 0 * value;
            peak = value > peak ? value : peak;
        }
        steps[row] = step_of(peak, poison, zero, smallest_step);
        write_codes(activated, width, steps[row], zero, codes);
    }
    free(activated);
    return 0;
}

/* T5's layer norm of x [rows, width] with its gain [width]: the root mean square divides the step, not the values. */
EXPORT int quantise_normed(
    const float *restrict x, const float *restrict gain, float epsilon, long rows, long width,
    float zero, float smallest_step, uint8_t *restrict codes, float *restrict steps
) {
    float *gained = malloc(width * sizeof *gained);
    if (!gained) return -1;
    for (long row = 0; row < rows; row++, x += width, codes += width) {
        float peak = 0, poison = 0, squares = 0;
#pragma omp simd reduction(max : peak) reduction(+ : poison, squares)
        for (long i = 0; i < width; i++) {
            squares += x[i] * x[i];
            float value = x[i] * gain[i], size = fabsf(value);
            gained[i] = value;
            poison += 0 * value;
            peak = size > peak ? size : peak;
        }
        float step = step_of(peak, poison, zero, smallest_step);
        write_codes(gained, width, step, zero, codes);
        steps[row] = step / sqrtf(squares / width + epsilon);
    }
    free(gained);
    return 0;
}
