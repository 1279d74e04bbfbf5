/* Rows times a matrix that lies in panels of columns: see anytask/products/panels.py. A panel stays in the cache while
   all rows are multiplied with it, and the next is fetched meanwhile. With few rows, memory is what takes the time; of
   their panels, a block stays in the nearest cache, and the next block is fetched. */

#include <stdlib.h>

#include "activation.h"
#include "kernels.h"
#include "vector.h"

/* Columns of a panel. Its numbers lie column beside column, in steps of one row of the matrix, or of four for bytes. */
#define PANEL 32
#define FEW_ROWS 28
#define STEPS_OF_BLOCK 96
/* Words multiplied in a call that is worth sharing among threads. */
#define WORDS_WORTH_SHARING (1 << 20)

/* As large a tile of the result as there are registers for. */
#define TILE_COLUMNS (2 * LANES)
#if LANES == 16
#define TILE_ROWS 14
#define EACH_ROW(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11) DO(12) DO(13)
#else
#define TILE_ROWS 6
#define EACH_ROW(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5)
#endif

struct result {
    const int32_t *start; /* of bytes, what each column's sum starts from */
    const float *scale;   /* of each column, or null */
    const float *factor;  /* of each row, or null */
    enum activation activation;
    int added; /* to what is there */
    float *out;
    long width;
};

struct tile {
    const int32_t *rows; /* of `depth` words: each a float, or four bytes */
    long depth;
    const int32_t *columns;
    long steps; /* those of this block */
    int begins, ends; /* whether it is the first one, and the last one */
    float *sums; /* between blocks, those of a row after those of another, PANEL apart */
    const char *ahead; /* memory from which to fetch, in each step, so many lines */
    int lines;
    struct result result; /* from the tile's corner on */
};

INLINE vector multiplied(const int bytes, whole_vector row, vector columns, vector sums) {
    if (!bytes) return sums + (vector)row * columns;
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(row), "v"(columns)); /* AVX-512 VNNI: asked for before the call */
    return sums;
}

INLINE vector scaled(const int bytes, vector sums, const float *scale) {
    if (bytes) sums = __builtin_convertvector((whole_vector)sums, vector);
    return scale ? sums * load(scale) : sums;
}

/* What becomes of a row's sums. Not inline: a tile has many rows. */
static __attribute__((noinline)) void finish(const struct result *to, long row, vector left, vector right) {
    float *out = to->out + row * to->width;
    if (to->factor) {
        left *= to->factor[row];
        right *= to->factor[row];
    }
    if (to->activation == RELU) {
        left = larger(all(0), left); /* in this order NaN stays */
        right = larger(all(0), right);
    } else if (to->activation == GELU) {
        left = gelu(left);
        right = gelu(right);
    }
    if (to->added) {
        left += load(out);
        right += load(out + LANES);
    }
    store(out, left);
    store(out + LANES, right);
}

INLINE void compute(const int bytes, const int rows, struct tile tile) {
    const float *columns = (const float *)tile.columns;
    vector first_left = all(0), first_right = all(0);
    if (bytes) {
        first_left = load((const float *)tile.result.start);
        first_right = load((const float *)tile.result.start + LANES);
    }
#define START(r)                                       \
    vector left##r = first_left, right##r = first_right; \
    if (r < rows && !tile.begins) {                    \
        left##r = load(tile.sums + r * PANEL);         \
        right##r = load(tile.sums + r * PANEL + LANES); \
    }
    EACH_ROW(START)
    for (long step = 0; step < tile.steps; step++) {
        const vector left = load(columns), right = load(columns + LANES);
        columns += PANEL;
        for (int line = 0; line < tile.lines; line++, tile.ahead += CACHE_LINE) __builtin_prefetch(tile.ahead, 0, 2);
#define MULTIPLY(r)                                                                     \
    if (r < rows) {                                                                     \
        const whole_vector row = (whole_vector){0} + tile.rows[r * tile.depth + step]; \
        left##r = multiplied(bytes, row, left, left##r);                                \
        right##r = multiplied(bytes, row, right, right##r);                             \
    }
        EACH_ROW(MULTIPLY)
    }
    if (!tile.ends) {
#define KEEP(r)                                        \
    if (r < rows) {                                    \
        store(tile.sums + r * PANEL, left##r);         \
        store(tile.sums + r * PANEL + LANES, right##r); \
    }
        EACH_ROW(KEEP)
        return;
    }
    const float *scale = tile.result.scale, *right_scale = scale ? scale + LANES : 0;
#define FINISH(r) \
    if (r < rows) finish(&tile.result, r, scaled(bytes, left##r, scale), scaled(bytes, right##r, right_scale));
    EACH_ROW(FINISH)
}

INLINE void compute_rows(const int bytes, int rows, struct tile tile) {
    switch (rows) {
#define CASE(r) case r + 1: compute(bytes, r + 1, tile); break;
        EACH_ROW(CASE)
    }
}

/* All rows with one panel, behind which the next is found at `next`. The first tile or two fetch what follows. */
INLINE void multiply_panel(const int bytes, long rows, struct tile tile, const char *next, int size) {
    const long tiles = (rows + TILE_ROWS - 1) / TILE_ROWS, fetching = tiles > 1 ? 2 : 1;
    const long block = rows <= FEW_ROWS && size == 4 ? STEPS_OF_BLOCK : tile.depth;
    const struct result all_rows = tile.result;
    const int32_t *x = tile.rows, *columns = tile.columns;
    float sums[FEW_ROWS * PANEL] __attribute__((aligned(CACHE_LINE)));
    for (long start = 0; start < tile.depth; start += block) {
        const long left = tile.depth - start;
        tile.steps = left < block ? left : block;
        tile.begins = start == 0;
        tile.ends = left <= block;
        const char *following = tile.ends ? next : (const char *)(columns + (start + block) * PANEL);
        for (long column = 0; column < PANEL; column += TILE_COLUMNS)
            for (long i = 0; i < tiles; i++) {
                const long first = i * rows / tiles, last = (i + 1) * rows / tiles;
                struct result *to = &tile.result;
                *to = all_rows;
                to->start += bytes ? column : 0;
                to->scale += to->scale ? column : 0;
                to->factor += to->factor ? first : 0;
                to->out += first * to->width + column;
                tile.rows = x + first * tile.depth + start;
                tile.columns = columns + start * PANEL + column;
                tile.sums = block < tile.depth ? sums + first * PANEL + column : 0;
                tile.lines = column == 0 && i < fetching ? (size < 4 ? 1 : 2 / fetching) : 0;
                tile.ahead = following + i * tile.steps * CACHE_LINE * tile.lines;
                compute_rows(bytes, last - first, tile);
            }
    }
}

/* Numbers of two bytes, bfloat16, or one as floats. */
INLINE void widen(const void *numbers, int size, long count, float *out) {
    if (size == 1) {
        const int8_t *whole = numbers;
        for (long i = 0; i < count; i++) out[i] = whole[i];
    } else {
        const uint16_t *halves = numbers;
        for (long i = 0; i < count; i++) {
            const uint32_t bits = (uint32_t)halves[i] << 16;
            memcpy(out + i, &bits, sizeof bits);
        }
    }
}

EXPORT int multiply(
    const struct matrix *matrix, const void *x, long rows, const float *factors, int activation, int added, float *out
) {
    const int bytes = matrix->start != 0;
    const long steps = bytes ? matrix->depth / 4 : matrix->depth, size = bytes ? 4 : matrix->size;
    const long panel_size = steps * PANEL * size;
    const struct result result = {matrix->start, matrix->scale, factors, activation, added, out, matrix->width};
    int failed = 0;
#pragma omp parallel if (rows * steps * result.width > WORDS_WORTH_SHARING)
    {
        float *room = size < 4 ? malloc(steps * PANEL * sizeof *room) : 0;
        if (size < 4 && !room)
#pragma omp atomic write
            failed = -1;
        /* Neighbours go to one thread, which fetches the next panel; the last ones to whoever is free. */
#pragma omp for schedule(guided)
        for (long column = 0; column < result.width; column += PANEL) {
            const char *panel = (const char *)matrix->panels + column / PANEL * panel_size;
            struct tile tile = {.rows = x, .depth = steps, .columns = (const int32_t *)panel, .result = result};
            tile.result.start += bytes ? column : 0;
            tile.result.scale += result.scale ? column : 0;
            tile.result.out += column;
            if (size < 4) {
                if (!room) continue;
                widen(panel, size, steps * PANEL, room);
                tile.columns = (const int32_t *)room;
            }
            if (bytes) multiply_panel(1, rows, tile, panel + panel_size, size);
            else multiply_panel(0, rows, tile, panel + panel_size, size);
        }
        free(room);
    }
    return failed;
}
