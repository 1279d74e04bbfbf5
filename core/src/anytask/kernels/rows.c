/* Rows become what a product takes, norm or activation included, in one reading of each. To bytes: see
   anytask/row_codes.py. */

#include <stdlib.h>

#include "activation.h"
#include "kernels.h"
#include "vector.h"

/* The step of a row with this peak; `poison` is zero times every value: nothing, unless one isn't finite, which the
   peak may not show. */
INLINE float step_of(struct codes codes, float peak, float poison) {
    float step = peak / (255 - codes.zero);
    return (step > codes.smallest_step ? step : codes.smallest_step) + poison;
}

INLINE void write_bytes(const float *restrict x, long width, float step, float zero, uint8_t *restrict bytes) {
    float steps_in_one = 1 / step;
#pragma omp simd
    for (long i = 0; i < width; i++) {
        float sum = x[i] * steps_in_one + (WHOLE + zero);
        int32_t bits;
        memcpy(&bits, &sum, sizeof bits);
        bytes[i] = (uint8_t)bits;
    }
}

/* Each of these writes a row's bytes and gives their step. */

static float quantise_row(const float *restrict x, long width, struct codes codes, uint8_t *restrict bytes) {
    float peak = 0, poison = 0;
#pragma omp simd reduction(max : peak) reduction(+ : poison)
    for (long i = 0; i < width; i++) {
        float size = fabsf(x[i]);
        poison += 0 * size;
        peak = size > peak ? size : peak;
    }
    const float step = step_of(codes, peak, poison);
    write_bytes(x, width, step, codes.zero, bytes);
    return step;
}

static float quantise_gelu_row(
    const float *restrict x, float factor, long width, struct codes codes, uint8_t *restrict bytes,
    float *restrict activated
) {
    vector peak = all(0), poison = all(0);
    for (long i = 0; i < width; i += LANES) {
        const vector given = width - i < LANES ? load_some(x + i, width - i) : load(x + i);
        const vector value = gelu(given * factor);
        store(activated + i, value);
        poison += 0 * value;
        peak = larger(value, peak);
    }
    const float step = step_of(codes, largest_of(peak), sum_of(poison));
    write_bytes(activated, width, step, codes.zero, bytes);
    return step;
}

/* The root mean square divides the step, not the values. */
static float quantise_normed_row(
    const float *restrict x, const float *restrict gain, float epsilon, long width, struct codes codes,
    uint8_t *restrict bytes, float *restrict gained
) {
    float peak = 0, poison = 0, squares = 0;
#pragma omp simd reduction(max : peak) reduction(+ : poison, squares)
    for (long i = 0; i < width; i++) {
        squares += x[i] * x[i];
        float value = x[i] * gain[i], size = fabsf(value);
        gained[i] = value;
        poison += 0 * value;
        peak = size > peak ? size : peak;
    }
    const float step = step_of(codes, peak, poison);
    write_bytes(gained, width, step, codes.zero, bytes);
    return step / sqrtf(squares / width + epsilon);
}

EXPORT int quantise(const float *x, long rows, long width, struct codes codes, uint8_t *bytes, float *steps) {
#pragma omp parallel for if (rows * width > WORTH_SHARING)
    for (long row = 0; row < rows; row++) steps[row] = quantise_row(x + row * width, width, codes, bytes + row * width);
    return 0;
}

/* Each row's step by a function of it, which may use `room` for a row's floats. */
#define STEPS_WITH_ROOM(step)                                            \
    int failed = 0;                                                      \
    _Pragma("omp parallel if (rows * width > WORTH_SHARING)") {          \
        float *room = malloc(rounded_up(width) * sizeof *room);          \
        if (!room) _Pragma("omp atomic write") failed = -1;              \
        _Pragma("omp for") for (long row = 0; row < rows; row++) {       \
            if (room) steps[row] = step;                                 \
        }                                                                \
        free(room);                                                      \
    }                                                                    \
    return failed;

EXPORT int quantise_gelu(
    const float *x, const float *factors, long rows, long width, struct codes codes, uint8_t *bytes, float *steps
) {
    STEPS_WITH_ROOM(quantise_gelu_row(x + row * width, factors[row], width, codes, bytes + row * width, room))
}

EXPORT int quantise_normed(
    const float *x, const float *gain, float epsilon, long rows, long width, struct codes codes, uint8_t *bytes,
    float *steps
) {
    STEPS_WITH_ROOM(quantise_normed_row(x + row * width, gain, epsilon, width, codes, bytes + row * width, room))
}

void norm(const float *x, const float *gain, float epsilon, long rows, long width, float *out) {
#pragma omp parallel for if (rows * width > WORTH_SHARING)
    for (long row = 0; row < rows; row++) {
        const float *restrict from = x + row * width;
        float *restrict to = out + row * width;
        float squares = 0;
#pragma omp simd reduction(+ : squares)
        for (long i = 0; i < width; i++) squares += from[i] * from[i];
        const float inverse = 1 / sqrtf(squares / width + epsilon);
#pragma omp simd
        for (long i = 0; i < width; i++) to[i] = from[i] * inverse * gain[i];
    }
}
