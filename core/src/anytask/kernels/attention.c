/* Self-attention of texts of one length, with a bias of the distance between query and key: see
   anytask/cpu_attention.py. A few queries at a time, so that their scores stay in the cache. */

#include <stdlib.h>

#include "vector.h"

#define QUERIES 4
/* Vectors beside each other in a tile: with QUERIES of them below each other, two thirds of the registers. */
#define MOST_VECTORS (LANES / 4)

/* out [rows, vectors * LANES] = a [rows, depth] b [depth, vectors * LANES] */
INLINE void tile(
    const int rows, const int vectors, const float *a, long a_stride, const float *b, long b_stride, long depth,
    float *out, long out_stride
) {
    vector sums[QUERIES][MOST_VECTORS];
    for (int row = 0; row < rows; row++)
        for (int i = 0; i < vectors; i++) sums[row][i] = all(0);
    for (long d = 0; d < depth; d++) {
        vector factors[MOST_VECTORS];
        for (int i = 0; i < vectors; i++) factors[i] = load(b + d * b_stride + i * LANES);
        for (int row = 0; row < rows; row++)
            for (int i = 0; i < vectors; i++) sums[row][i] += a[row * a_stride + d] * factors[i];
    }
    for (int row = 0; row < rows; row++)
        for (int i = 0; i < vectors; i++) store(out + row * out_stride + i * LANES, sums[row][i]);
}

/* out [rows, width] = a [rows, depth] b [depth, width], width being a multiple of LANES */
INLINE void multiply_rows(
    const int rows, const float *a, long a_stride, const float *b, long b_stride, long depth,
    float *out, long out_stride, long width
) {
    long done = 0;
    for (; done + MOST_VECTORS * LANES <= width; done += MOST_VECTORS * LANES)
        tile(rows, MOST_VECTORS, a, a_stride, b + done, b_stride, depth, out + done, out_stride);
    if (MOST_VECTORS > 2 && done + 2 * LANES <= width) {
        tile(rows, 2, a, a_stride, b + done, b_stride, depth, out + done, out_stride);
        done += 2 * LANES;
    }
    if (done < width) tile(rows, 1, a, a_stride, b + done, b_stride, depth, out + done, out_stride);
}

INLINE void multiply(
    int rows, const float *a, long a_stride, const float *b, long b_stride, long depth,
    float *out, long out_stride, long width
) {
    _Static_assert(QUERIES == 4, "a case for each number of rows");
    if (rows == 4) multiply_rows(4, a, a_stride, b, b_stride, depth, out, out_stride, width);
    else if (rows == 3) multiply_rows(3, a, a_stride, b, b_stride, depth, out, out_stride, width);
    else if (rows == 2) multiply_rows(2, a, a_stride, b, b_stride, depth, out, out_stride, width);
    else multiply_rows(1, a, a_stride, b, b_stride, depth, out, out_stride, width);
}

/* e^x for x <= 0, to 2e-7 of it: 2^n times a polynomial of what is left, below ln 2 / 2. */
INLINE vector exponential(vector x) {
    x = choose(x < -87, all(-87), x); /* so that NaN stays */
    vector n = (x * 1.44269504f + WHOLE) - WHOLE;
    vector rest = x - n * 0.693359375f + n * 2.12194440e-4f;
    vector p = rest * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * rest + 8.3334519073e-3f;
    p = p * rest + 4.1665795894e-2f;
    p = p * rest + 1.6666665459e-1f;
    p = p * rest + 5.0000001201e-1f;
    p = p * rest * rest + rest + 1;
    whole_vector power = (__builtin_convertvector(n, whole_vector) + 127) << 23;
    return p * (vector)power;
}

/* Scores [keys], a multiple of LANES, times a factor and with the bias added, become weights; gives their sum. Of the
   last vector's keys, some aren't present. */
INLINE float weigh(float *scores, const float *bias, float factor, whole_vector present, long keys) {
    long last = keys - LANES;
    vector largest = choose(present, load(scores + last) * factor + load(bias + last), all(-INFINITY));
    store(scores + last, largest);
    for (long key = 0; key < last; key += LANES) {
        vector score = load(scores + key) * factor + load(bias + key);
        store(scores + key, score);
        largest = larger(score, largest);
    }
    float top = largest_of(largest);
    vector sums = all(0);
    for (long key = 0; key < keys; key += LANES) {
        vector weight = exponential(load(scores + key) - top);
        store(scores + key, weight);
        sums += weight;
    }
    return sum_of(sums);
}

/* Where a head's keys, transposed, its values, a few queries' scores and their contexts are put. */
struct room {
    float *k, *v, *scores, *context;
};

INLINE long rounded_up(long count) { return (count + LANES - 1) / LANES * LANES; }

/* One head of one text: x points to its first query. */
static void attend_one(
    const float *x, long stride, const float *factors, const float *bias, long length, long inner, long width,
    struct room room, float *out
) {
    const long keys = rounded_up(length), columns = rounded_up(width);
    whole_vector present;
    for (int lane = 0; lane < LANES; lane++) present[lane] = keys - LANES + lane < length ? -1 : 0;
    for (long key = 0; key < length; key++) {
        const float *k = x + inner + key * stride, *v = k + inner, factor = factors ? factors[key] : 1;
        for (long i = 0; i < width; i++) room.k[i * keys + key] = k[i] * factor;
        for (long i = 0; i < width; i++) room.v[key * columns + i] = v[i] * factor;
    }
    for (long query = 0; query < length; query += QUERIES) {
        const int rows = length - query < QUERIES ? length - query : QUERIES;
        float shares[QUERIES];
        multiply(rows, x + query * stride, stride, room.k, keys, width, room.scores, keys, keys);
        for (int row = 0; row < rows; row++) {
            const float factor = factors ? factors[query + row] : 1;
            shares[row] = 1 / weigh(room.scores + row * keys, bias - query - row, factor, present, keys);
        }
        multiply(rows, room.scores, keys, room.v, columns, length, room.context, columns, columns);
        for (int row = 0; row < rows; row++)
            for (long i = 0; i < width; i++)
                out[(query + row) * inner + i] = room.context[row * columns + i] * shares[row];
    }
}

/* Args:
   x [T, 3 * heads * width]: queries, keys and values;
   factors [T]: what each row is to be multiplied by, or null;
   bias [heads, bias_stride]: of each distance, that of zero in column `middle`; LANES - 1 columns more than needed;
   groups [group_count, 2]: numbers of texts and their length, of one group after the other;
   out [T, heads * width]. */
EXPORT int attend(
    const float *x, const float *factors, const float *bias, long bias_stride, long middle,
    const int64_t *groups, long group_count, long heads, long width, float *out
) {
    const long inner = heads * width, columns = rounded_up(width);
    long longest = 0;
    for (long group = 0; group < group_count; group++)
        if (groups[2 * group + 1] > longest) longest = groups[2 * group + 1];
    const long keys = rounded_up(longest);
    const size_t floats = width * keys + longest * columns + QUERIES * (keys + columns);
    int failed = 0;
#pragma omp parallel if (longest * longest * heads > WORTH_SHARING)
    {
        float *memory = aligned_alloc(sizeof(vector), floats * sizeof *memory); /* a multiple, as all parts are */
        struct room room = {memory};
        if (memory) {
            memset(memory, 0, floats * sizeof *memory);
            room.v = room.k + width * keys;
            room.scores = room.v + longest * columns;
            room.context = room.scores + QUERIES * keys;
        } else {
#pragma omp atomic write
            failed = -1;
        }
        long start = 0;
        for (long group = 0; group < group_count; group++) {
            const long texts = groups[2 * group], length = groups[2 * group + 1];
#pragma omp for collapse(2) nowait
            for (long text = 0; text < texts; text++)
                for (long head = 0; head < heads; head++) {
                    const long row = start + text * length;
                    if (memory)
                        attend_one(
                            x + row * 3 * inner + head * width, 3 * inner, factors ? factors + row : 0,
                            bias + head * bias_stride + middle, length, inner, width, room,
                            out + row * inner + head * width
                        );
                }
            start += texts * length;
        }
        free(memory);
    }
    return failed;
}
