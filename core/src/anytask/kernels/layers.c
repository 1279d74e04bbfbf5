/* An encoder's layers, one after the other: self-attention, then feed-forward, each added to the rows. A layer takes so
   many rows at a time that what lies between its matrices stays in the cache. */

#include <stdlib.h>

#include "kernels.h"
#include "vector.h"

struct layer {
    const float *attention_gain, *feed_forward_gain;
    struct matrix qkv, o, wi, wo;
};

struct encoder {
    const struct layer *layers;
    long count, heads, rows_at_once;
    float epsilon;
    int activation;
    struct codes plain, activated; /* of rows, and of those that follow the activation */
};

/* What is between a layer's matrices, for some rows: what goes into a product and, of bytes, what each row is to be
   multiplied by; what comes from the first product of either part; and attention's contexts. */
struct room {
    void *input;
    float *steps, *wide, *wide_factors, *contexts;
};

/* room->wide = the norm of x times the matrix */
static int multiply_normed(
    const struct encoder *encoder, const float *x, long rows, const float *gain, const struct matrix *matrix,
    int activation, const struct room *room
) {
    if (!matrix->start) {
        norm(x, gain, encoder->epsilon, rows, matrix->depth, room->input);
        return multiply(matrix, room->input, rows, 0, activation, 0, room->wide);
    }
    /* The factors stay for whoever reads the result: ReLU doesn't mind, GELU comes then. */
    const int failed = quantise_normed(
        x, gain, encoder->epsilon, rows, matrix->depth, encoder->plain, room->input, room->wide_factors
    );
    return failed || multiply(matrix, room->input, rows, 0, activation == RELU ? RELU : NONE, 0, room->wide);
}

/* x += rows times the matrix: floats, or the bytes that they have become */
static int add_product(const float *from, const struct matrix *matrix, long rows, const struct room *room, float *x) {
    if (matrix->start) return multiply(matrix, room->input, rows, room->steps, NONE, 1, x);
    return multiply(matrix, from, rows, 0, NONE, 1, x);
}

static int attention(
    const struct encoder *encoder, const struct layer *layer, const float *bias, long bias_stride, long middle,
    const int64_t *groups, long group_count, long rows, const struct room *room, float *x
) {
    const struct matrix *qkv = &layer->qkv, *o = &layer->o;
    if (multiply_normed(encoder, x, rows, layer->attention_gain, qkv, NONE, room)) return -1;
    const float *factors = qkv->start ? room->wide_factors : 0;
    const long width = o->depth / encoder->heads;
    if (attend(
            room->wide, factors, bias, bias_stride, middle, groups, group_count, encoder->heads, width, room->contexts
        ))
        return -1;
    if (o->start && quantise(room->contexts, rows, o->depth, encoder->plain, room->input, room->steps)) return -1;
    return add_product(room->contexts, o, rows, room, x);
}

/* Of hidden values, with the activation if they haven't had it yet. */
static int become_bytes(const struct encoder *encoder, long width, long rows, const struct room *room) {
    const float *hidden = room->wide, *factors = room->wide_factors;
    if (encoder->activation == GELU)
        return quantise_gelu(hidden, factors, rows, width, encoder->activated, room->input, room->steps);
    if (quantise(hidden, rows, width, encoder->activated, room->input, room->steps)) return -1;
    for (long row = 0; row < rows; row++) room->steps[row] *= factors[row];
    return 0;
}

static int feed_forward(
    const struct encoder *encoder, const struct layer *layer, long rows, const struct room *room, float *x
) {
    const struct matrix *wo = &layer->wo;
    if (multiply_normed(encoder, x, rows, layer->feed_forward_gain, &layer->wi, encoder->activation, room)) return -1;
    if (wo->start && become_bytes(encoder, wo->depth, rows, room)) return -1;
    return add_product(room->wide, wo, rows, room, x);
}

/* Where the next texts are: in which group, behind how many of its texts. */
struct place {
    long group, texts;
};

/* Into `chosen`, as groups, the next texts of up to so many rows; gives the number of their groups. */
static long next_texts(
    const int64_t *groups, long group_count, struct place *place, long most_rows, int64_t *chosen, long *rows
) {
    long count = 0;
    for (*rows = 0; place->group < group_count; *place = (struct place){place->group + 1, 0}) {
        const int64_t *group = groups + 2 * place->group;
        const long left = group[0] - place->texts, fitting = group[1] ? (most_rows - *rows) / group[1] : left;
        const long texts = fitting < left ? fitting : left;
        if (texts) {
            chosen[2 * count] = texts;
            chosen[2 * count++ + 1] = group[1];
            *rows += texts * group[1];
        }
        place->texts += texts;
        if (texts < left) break;
    }
    return count;
}

static long most_of(long a, long b) { return a > b ? a : b; }

static char *aligned(char *place) { return place + -(uintptr_t)place % CACHE_LINE; }

/* Room for so many rows, in one piece of memory, which is given; null if there is none. */
static void *reserve(const struct layer *layer, long rows, struct room *room) {
    const long d_model = layer->qkv.depth, inner = layer->o.depth, d_ff = layer->wo.depth;
    const int bytes = layer->qkv.start != 0; /* which contexts and hidden values become too */
    const size_t input = rows * (bytes ? most_of(d_model, most_of(inner, d_ff)) : d_model * (long)sizeof(float));
    const size_t wide = rows * most_of(3 * inner, d_ff) * sizeof(float), contexts = rows * inner * sizeof(float);
    const size_t factors = rows * sizeof(float);
    char *memory = malloc(input + wide + contexts + 2 * factors + 5 * CACHE_LINE);
    if (!memory) return 0;
    room->input = aligned(memory);
    room->wide = (float *)aligned((char *)room->input + input);
    room->contexts = (float *)aligned((char *)room->wide + wide);
    room->wide_factors = (float *)aligned((char *)room->contexts + contexts);
    room->steps = (float *)aligned((char *)room->wide_factors + factors);
    return memory;
}

/* x [rows, d_model], of texts in groups as for `attend`, which also says what the bias is. */
EXPORT int encode(
    const struct encoder *encoder, float *x, long rows, const float *bias, long bias_stride, long middle,
    const int64_t *groups, long group_count
) {
    const long d_model = encoder->layers->qkv.depth;
    const long parts = (rows + encoder->rows_at_once - 1) / encoder->rows_at_once;
    const long share = parts > 1 ? (rows + parts - 1) / parts : rows;
    const long most = most_of(share, longest_text(groups, group_count));
    struct room room;
    void *memory = reserve(encoder->layers, most, &room);
    int64_t *some = malloc(2 * group_count * sizeof *some);
    int failed = memory && some ? 0 : -1;
    for (const struct layer *layer = encoder->layers; !failed && layer < encoder->layers + encoder->count; layer++) {
        struct place place = {0, 0};
        for (long start = 0, now; !failed && place.group < group_count; start += now) {
            const long count = next_texts(groups, group_count, &place, most, some, &now);
            float *part = x + start * d_model;
            failed = attention(encoder, layer, bias, bias_stride, middle, some, count, now, &room, part);
        }
        for (long start = 0; !failed && start < rows; start += share) {
            const long now = rows - start < share ? rows - start : share;
            failed = feed_forward(encoder, layer, now, &room, x + start * d_model);
        }
    }
    free(memory);
    free(some);
    return failed;
}
