/* What kernels are called by other kernels. Those that can fail give -1 for want of memory, else 0. */

#ifndef ANYTASK_KERNELS_H
#define ANYTASK_KERNELS_H

#include <stdint.h>

#define EXPORT __attribute__((visibility("default")))

enum activation { NONE, RELU, GELU };

/* A matrix in panels of columns, [width / PANEL, depth, PANEL] numbers of `size` bytes: float, bfloat16 or int8. With
   `start`, rows of bytes are multiplied with it, and four of its bytes lie beside each other, [width / PANEL,
   depth / 4, PANEL, 4]: what each column's sum starts from, [width]. */
struct matrix {
    const void *panels;
    long size, depth, width;
    const int32_t *start;
    const float *scale; /* of its columns, [width], or null */
};

/* How rows become bytes: the byte that stands for zero, and the least step between two bytes' values. */
struct codes {
    float zero, smallest_step;
};

/* out [rows, width] = x [rows, depth] times the matrix, and times each row's factor if there are some; then the
   activation, or it is added to what is there. x are bytes from 0 to 255 or floats, as the matrix wants. */
int multiply(
    const struct matrix *matrix, const void *x, long rows, const float *factors, int activation, int added, float *out
);

/* Rows [rows, width] to bytes, and each row's step. */
int quantise(const float *x, long rows, long width, struct codes codes, uint8_t *bytes, float *steps);

/* GELU of rows times their factors. */
int quantise_gelu(
    const float *x, const float *factors, long rows, long width, struct codes codes, uint8_t *bytes, float *steps
);

/* T5's layer norm of rows, with its gain [width]. */
int quantise_normed(
    const float *x, const float *gain, float epsilon, long rows, long width, struct codes codes, uint8_t *bytes,
    float *steps
);

/* T5's layer norm of rows, in floats. */
void norm(const float *x, const float *gain, float epsilon, long rows, long width, float *out);

/* The longest length in groups [group_count, 2]: so many texts of such a length. */
static inline long longest_text(const int64_t *groups, long group_count) {
    long longest = 0;
    for (long group = 0; group < group_count; group++)
        if (groups[2 * group + 1] > longest) longest = groups[2 * group + 1];
    return longest;
}

/* out [T, heads * width]: self-attention's contexts of x [T, 3 * heads * width], queries, keys and values, times each
   row's factor, if there are some. Its texts lie in groups, one after the other. The bias of a distance between query
   and key [heads, bias_stride] is that of zero in column `middle`, with as many columns more than needed as a vector
   has lanes. */
int attend(
    const float *x, const float *factors, const float *bias, long bias_stride, long middle, const int64_t *groups,
    long group_count, long heads, long width, float *out
);

#endif
