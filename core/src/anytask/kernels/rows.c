/* Float rows become bytes for an int8 product, in one reading of each row: see anytask/row_codes.py. */

#include <stdlib.h>

#include "activation.h"
#include "vector.h"

/* What a row's bytes are made by. */
struct codes {
    float zero, smallest_step;
    uint8_t *bytes;
    float *steps;
};

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

static void quantise_row(const float *restrict x, long row, long width, struct codes codes) {
    float peak = 0, poison = 0;
#pragma omp simd reduction(max : peak) reduction(+ : poison)
    for (long i = 0; i < width; i++) {
        float size = fabsf(x[i]);
        poison += 0 * size;
        peak = size > peak ? size : peak;
    }
    codes.steps[row] = step_of(codes, peak, poison);
    write_bytes(x, width, codes.steps[row], codes.zero, codes.bytes + row * width);
}

static void quantise_gelu_row(
    const float *restrict x, float factor, long row, long width, struct codes codes, float *restrict activated
) {
    vector peak = all(0), poison = all(0);
    for (long i = 0; i < width; i += LANES) {
        const vector given = width - i < LANES ? load_some(x + i, width - i) : load(x + i), value = gelu(given * factor);
        store(activated + i, value);
        poison += 0 * value;
        peak = larger(value, peak);
    }
    codes.steps[row] = step_of(codes, largest_of(peak), sum_of(poison));
    write_bytes(activated, width, codes.steps[row], codes.zero, codes.bytes + row * width);
}

/* The root mean square divides the step, not the values. */
static void quantise_normed_row(
    const float *restrict x, const float *restrict gain, float epsilon, long row, long width, struct codes codes,
    float *restrict gained
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
    float step = step_of(codes, peak, poison);
    write_bytes(gained, width, step, codes.zero, codes.bytes + row * width);
    codes.steps[row] = step / sqrtf(squares / width + epsilon);
}

/* x [rows, width] to bytes, and each row's step. */
EXPORT int quantise(
    const float *x, long rows, long width, float zero, float smallest_step, uint8_t *bytes, float *steps
) {
    struct codes codes = {zero, smallest_step, bytes, steps};
#pragma omp parallel for if (rows * width > WORTH_SHARING)
    for (long row = 0; row < rows; row++) quantise_row(x + row * width, row, width, codes);
    return 0;
}

/* Of each thread, `room` for a row, around the rows' loop in which it is used. */
#define WITH_ROOM(rows, width, loop)                                  \
    int failed = 0;                                                   \
    _Pragma("omp parallel if ((rows) * (width) > WORTH_SHARING)") {   \
        float *room = malloc(rounded_up(width) * sizeof *room);       \
        if (!room) _Pragma("omp atomic write") failed = -1;           \
        _Pragma("omp for") for (long row = 0; row < (rows); row++) {  \
            if (room) loop;                                           \
        }                                                             \
        free(room);                                                   \
    }                                                                 \
    return failed;

/* GELU of x [rows, width] times each row's factor. */
EXPORT int quantise_gelu(
    const float *x, const float *factors, long rows, long width, float zero, float smallest_step,
    uint8_t *bytes, float *steps
) {
    struct codes codes = {zero, smallest_step, bytes, steps};
    WITH_ROOM(rows, width, quantise_gelu_row(x + row * width, factors[row], row, width, codes, room))
}

/* T5's layer norm of x [rows, width] with its gain [width]. */
EXPORT int quantise_normed(
    const float *x, const float *gain, float epsilon, long rows, long width, float zero, float smallest_step,
    uint8_t *bytes, float *steps
) {
    struct codes codes = {zero, smallest_step, bytes, steps};
    WITH_ROOM(rows, width, quantise_normed_row(x + row * width, gain, epsilon, row, width, codes, room))
}
