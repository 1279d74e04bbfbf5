/* Self-attention of texts of one length, with a bias of the distance between query and key: see
   anytask/cpu_attention.py. A few queries at a time, so that their scores stay in the cache. */

#include <stdlib.h>

#include "kernels.h"
#include "vector.h"

#define QUERIES 6
/* Vectors beside each other in a tile: with QUERIES of them below each other, most of the registers. */
#define MOST_VECTORS (LANES / 4)

/* out [rows, vectors * LANES] = a [rows, depth] b [depth, vectors * LANES], times each row's factor */
INLINE void tile(
    const int rows, const int vectors, const float *a, long a_stride, const float *b, long b_stride, long depth,
    const float *factors, float *out, long out_stride
) {
    vector sums[QUERIES][MOST_VECTORS];
    for (int row = 0; row < rows; row++)
        for (int i = 0; i < vectors; i++) sums[row][i] = all(0);
    for (long d = 0; d < depth; d++) {
        vector columns[MOST_VECTORS];
        for (int i = 0; i < vectors; i++) columns[i] = load(b + d * b_stride + i * LANES);
        for (int row = 0; row < rows; row++)
            for (int i = 0; i < vectors; i++) sums[row][i] += a[row * a_stride + d] * columns[i];
    }
    for (int row = 0; row < rows; row++)
        for (int i = 0; i < vectors; i++)
            store(out + row * out_stride + i * LANES, factors ? sums[row][i] * factors[row] : sums[row][i]);
}

/* out [rows, width] = a [rows, depth] b [depth, width] times each row's factor, width being a multiple of LANES */
INLINE void multiply_rows(
    const int rows, const float *a, long a_stride, const float *b, long b_stride, long depth,
    const float *factors, float *out, long out_stride, long width
) {
    long done = 0;
    for (; done + MOST_VECTORS * LANES <= width; done += MOST_VECTORS * LANES)
        tile(rows, MOST_VECTORS, a, a_stride, b + done, b_stride, depth, factors, out + done, out_stride);
    if (MOST_VECTORS > 2 && done + 2 * LANES <= width) {
        tile(rows, 2, a, a_stride, b + done, b_stride, depth, factors, out + done, out_stride);
        done += 2 * LANES;
    }
    if (done < width) tile(rows, 1, a, a_stride, b + done, b_stride, depth, factors, out + done, out_stride);
}

static void multiply_tile(
    int rows, const float *a, long a_stride, const float *b, long b_stride, long depth,
    const float *factors, float *out, long out_stride, long width
) {
    _Static_assert(QUERIES == 6, "a case for each number of rows");
    switch (rows) {
#define CASE(r) \
    case r: multiply_rows(r, a, a_stride, b, b_stride, depth, factors, out, out_stride, width); break;
        CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6)
    }
}

/* e^x for x <= 0, to 2e-7 of it: 2^n times a polynomial of what is left, below ln 2 / 2. */
INLINE vector exponential(vector x) {
    x = larger(all(-87), x); /* in this order NaN stays */
    const vector shifted = x * 1.44269504f + WHOLE, n = shifted - WHOLE;
    const vector rest = x - n * 0.693359375f + n * 2.12194440e-4f;
    vector p = rest * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * rest + 8.3334519073e-3f;
    p = p * rest + 4.1665795894e-2f;
    p = p * rest + 1.6666665459e-1f;
    p = p * rest + 5.0000001201e-1f;
    p = p * rest * rest + rest + 1;
    const whole_vector power = ((whole_vector)shifted << 23) + (127 << 23);
    return p * (vector)power;
}

/* Scores [keys], a multiple of LANES, become weights, once the bias is added; gives their sum. Of the last vector's
   keys, some aren't present. */
INLINE float weigh(float *scores, const float *bias, whole_vector present, long keys) {
    const long last = keys - LANES;
    vector largest = choose(present, load(scores + last) + load(bias + last), all(-INFINITY));
    store(scores + last, largest);
    for (long key = 0; key < last; key += LANES) {
        const vector score = load(scores + key) + load(bias + key);
        store(scores + key, score);
        largest = larger(score, largest);
    }
    const float top = largest_of(largest);
    vector sums = all(0);
    for (long key = 0; key < keys; key += LANES) {
        const vector weight = exponential(load(scores + key) - top);
        store(scores + key, weight);
        sums += weight;
    }
    return sum_of(sums);
}

#if LANES == 16
#define EACH_LANE(DO, by) DO(0, by), DO(1, by), DO(2, by), DO(3, by), DO(4, by), DO(5, by), DO(6, by), DO(7, by), \
    DO(8, by), DO(9, by), DO(10, by), DO(11, by), DO(12, by), DO(13, by), DO(14, by), DO(15, by)
#else
#define EACH_LANE(DO, by) DO(0, by), DO(1, by), DO(2, by), DO(3, by), DO(4, by), DO(5, by), DO(6, by), DO(7, by)
#endif
#define FROM_LEFT(lane, by) (lane & by ? LANES + lane - by : lane)
#define FROM_RIGHT(lane, by) (lane & by ? LANES + lane : lane + by)

/* Of each square of twice so many rows and lanes, the upper right quarter and the lower left one change places. */
#define EXCHANGE(by)                                                                                \
    for (int i = 0; i < LANES; i++)                                                                 \
        if (!(i & by)) {                                                                            \
            const vector upper = v[i], lower = v[i + by];                                           \
            v[i] = __builtin_shuffle(upper, lower, (whole_vector){EACH_LANE(FROM_LEFT, by)});       \
            v[i + by] = __builtin_shuffle(upper, lower, (whole_vector){EACH_LANE(FROM_RIGHT, by)}); \
        }

/* LANES rows of x times their factors, with zeros for those that are missing, become columns of out. */
INLINE void transpose(const float *x, long stride, const float *factors, long rows, float *out, long out_stride) {
    vector v[LANES];
    for (int i = 0; i < LANES; i++) v[i] = i < rows ? load(x + i * stride) * (factors ? factors[i] : 1) : all(0);
    if (LANES > 8) EXCHANGE(8)
    EXCHANGE(4)
    EXCHANGE(2)
    EXCHANGE(1)
    for (int i = 0; i < LANES; i++) store(out + i * out_stride, v[i]);
}

/* Where a head's keys, transposed, its values, a few queries' scores and their contexts are put. */
struct room {
    float *k, *v, *scores, *context;
};

/* A head's keys and values, x pointing to the first query, times their factors. */
static void take(
    const float *x, long stride, const float *factors, long length, long inner, long width, struct room room
) {
    const long keys = rounded_up(length), columns = rounded_up(width), whole = width / LANES * LANES;
    for (long key = 0; key < length; key += LANES)
        for (long i = 0; i < whole; i += LANES)
            transpose(
                x + key * stride + inner + i, stride, factors ? factors + key : 0, length - key,
                room.k + i * keys + key, keys
            );
    for (long key = 0; key < length; key++) {
        const float *q = x + key * stride, *k = q + inner, *v = k + inner, factor = factors ? factors[key] : 1;
        for (long i = 0; i < whole; i += LANES) store(room.v + key * columns + i, load(v + i) * factor);
        for (long i = whole; i < width; i++) {
            room.k[i * keys + key] = k[i] * factor;
            room.v[key * columns + i] = v[i] * factor;
        }
        for (long next = width; next < 2 * width; next += CACHE_LINE / sizeof *x) { /* the next head's */
            __builtin_prefetch(q + next);
            __builtin_prefetch(k + next);
            __builtin_prefetch(v + next);
        }
    }
}

/* One head of one text: x points to its first query. */
static void attend_one(
    const float *x, long stride, const float *factors, const float *bias, long length, long inner, long width,
    struct room room, float *out
) {
    const long keys = rounded_up(length), columns = rounded_up(width);
    whole_vector present;
    for (int lane = 0; lane < LANES; lane++) present[lane] = keys - LANES + lane < length ? -1 : 0;
    take(x, stride, factors, length, inner, width, room);
    for (long query = 0; query < length; query += QUERIES, out += QUERIES * inner) {
        const int rows = length - query < QUERIES ? length - query : QUERIES;
        const float *q = x + query * stride, *own = factors ? factors + query : 0;
        float shares[QUERIES];
        multiply_tile(rows, q, stride, room.k, keys, width, own, room.scores, keys, keys);
        for (int row = 0; row < rows; row++)
            shares[row] = 1 / weigh(room.scores + row * keys, bias - query - row, present, keys);
        if (columns == width) {
            multiply_tile(rows, room.scores, keys, room.v, columns, length, shares, out, inner, columns);
        } else {
            multiply_tile(rows, room.scores, keys, room.v, columns, length, shares, room.context, columns, columns);
            for (int row = 0; row < rows; row++)
                memcpy(out + row * inner, room.context + row * columns, width * sizeof *out);
        }
    }
}

EXPORT int attend(
    const float *x, const float *factors, const float *bias, long bias_stride, long middle,
    const int64_t *groups, long group_count, long heads, long width, float *out
) {
    const long inner = heads * width, columns = rounded_up(width);
    const long longest = longest_text(groups, group_count), keys = rounded_up(longest);
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
