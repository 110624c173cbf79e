/* The tile: a few rows times one panel. All products here are made of it.

   The naive loop:

       for (i = 0; i < rows; i++)
           for (c = 0; c < PANEL; c++) {
               sums[i][c] = 0;
               for (k = 0; k < K; k++) sums[i][c] += A[i][k] * panel[k][c];
           }

   A panel holds PANEL neighbouring columns of the right-hand matrix, row after row, so that the
   inner loop reads memory from end to end. The sums of a tile, ROWS * 2 vectors, stay in registers
   (Goto and van de Geijn 2008, "Anatomy of high-performance matrix multiplication", section 4). */

#pragma once
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif
#define PANEL (2 * LANES)
#define ROWS 6

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef float vec_in_memory __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

static inline vec load(const float *x) { return *(const vec_in_memory *)x; }
static inline void store(float *x, vec v) { *(vec_in_memory *)x = v; }
static inline int64_t num_panels(int64_t columns) { return (columns + PANEL - 1) / PANEL; }

/* The left-hand matrix. Its columns may come in blocks of K; element (i, j) of block b is at
   a[b * block + i * row + j * k]. */
typedef struct {
    const float *a;
    int64_t row, k, block, K, blocks;
} left;

/* sums (rows, PANEL) = x times the panel b, whose rows are `vecs` vectors wide. `rows` and `vecs`
   are constants wherever this is inlined, so that c becomes registers. */
static inline __attribute__((always_inline)) void tile_of(const int rows, const int vecs, left x,
                                                          const float *b, float *sums)
{
    vec c[ROWS][2] = {{{0}}};
    for (int64_t block = 0; block < x.blocks; block++) {
        const float *a = x.a + block * x.block;
        for (int64_t k = 0; k < x.K; k++, a += x.k, b += vecs * LANES) {
            vec b0 = load(b), b1 = vecs == 2 ? load(b + LANES) : b0;
            for (int i = 0; i < rows; i++) {
                float ai = a[i * x.row];
                c[i][0] += ai * b0;
                if (vecs == 2) c[i][1] += ai * b1;
            }
        }
    }
    for (int i = 0; i < rows; i++) {
        store(sums + i * PANEL, c[i][0]);
        if (vecs == 2) store(sums + i * PANEL + LANES, c[i][1]);
    }
}

/* The same for a single row, with four sums a vector: an addition need not wait for the one before.
   */
static inline __attribute__((always_inline)) void tile_of_one(const int vecs, left x,
                                                              const float *b, float *sums)
{
    const int width = vecs * LANES;
    vec c[4][2] = {{{0}}};
    for (int64_t block = 0; block < x.blocks; block++) {
        const float *a = x.a + block * x.block;
        int64_t k = 0;
        for (; k + 4 <= x.K; k += 4, b += 4 * width)
            for (int j = 0; j < 4; j++) {
                float aj = a[(k + j) * x.k];
                c[j][0] += aj * load(b + j * width);
                if (vecs == 2) c[j][1] += aj * load(b + j * width + LANES);
            }
        for (; k < x.K; k++, b += width) {
            c[0][0] += a[k * x.k] * load(b);
            if (vecs == 2) c[0][1] += a[k * x.k] * load(b + LANES);
        }
    }
    store(sums, c[0][0] + c[1][0] + (c[2][0] + c[3][0]));
    if (vecs == 2) store(sums + LANES, c[0][1] + c[1][1] + (c[2][1] + c[3][1]));
}

static inline __attribute__((always_inline)) void tile_of_rows(int64_t rows, const int vecs, left x,
                                                               const float *b, float *sums)
{
    switch (rows) {
    case 1: tile_of_one(vecs, x, b, sums); break;
    case 2: tile_of(2, vecs, x, b, sums); break;
    case 3: tile_of(3, vecs, x, b, sums); break;
    case 4: tile_of(4, vecs, x, b, sums); break;
    case 5: tile_of(5, vecs, x, b, sums); break;
    default: tile_of(6, vecs, x, b, sums);
    }
}

/* `width` is that of the panel b: PANEL, or half of it. The rows of `sums` lie PANEL apart either
   way. */
static void tile(int64_t rows, int64_t width, left x, const float *b, float *sums)
{
    if (width == PANEL)
        tile_of_rows(rows, 2, x, b, sums);
    else
        tile_of_rows(rows, 1, x, b, sums);
}

/* How many of the remaining rows the next tile takes: at most ROWS, and all tiles about equally
   high. */
static inline int64_t next_rows(int64_t left_over)
{
    int64_t tiles = (left_over + ROWS - 1) / ROWS;
    return (left_over + tiles - 1) / tiles;
}

/* The width of the panel for so many remaining columns: a last panel that would be half empty is
   half as wide. */
static inline int64_t panel_width(int64_t columns) { return columns > LANES ? PANEL : LANES; }

/* Packs: panel (K, width) = `columns` columns of the matrix whose element (k, c) is at
   b[k * row + c * column], padded with zeros. */
static void pack(float *panel, int64_t width, const float *b, int64_t row, int64_t column,
                 int64_t K, int64_t columns)
{
    if (columns < width) memset(panel, 0, sizeof(float) * K * width);
    if (column == 1) {
        for (int64_t k = 0; k < K; k++)
            memcpy(panel + k * width, b + k * row, sizeof(float) * columns);
    } else {
        for (int64_t c = 0; c < columns; c++)
            for (int64_t k = 0; k < K; k++) panel[k * width + c] = b[k * row + c * column];
    }
}
