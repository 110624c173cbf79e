/* The product of a single row (product in common/kernels/__init__.py).

   The naive loop:

       for (n = 0; n < N; n++) {
           y[n] = bias[n];
           for (k = 0; k < K; k++) y[n] += x[k] * B[k][n];
       }

   Each element of B is used once, so packing would cost more than it saves. The time is that of
   reading B; each thread reads some of its columns. */

#include "single_row.h"
#include "threads.h"
#include "tile.h"

typedef struct {
    const float *x, *B, *bias;
    float *y;
    int64_t row, column, K, N, block;
} args;

static void begin_sum(const args *o, int64_t n, int64_t columns)
{
    if (o->bias == NULL)
        memset(o->y + n, 0, sizeof(float) * columns);
    else
        memcpy(o->y + n, o->bias + n, sizeof(float) * columns);
}

static float sum_of(vec v)
{
    float part[LANES];
    store(part, v);
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int j = 0; j < half; j++) part[j] += part[j + half];
    return part[0];
}

/* With four vectors of sums: an addition need not wait for the one before. */
static float scalar_product(const float *x, const float *b, int64_t K)
{
    vec c[4] = {{0}};
    int64_t k = 0;
    for (; k + 4 * LANES <= K; k += 4 * LANES)
        for (int j = 0; j < 4; j++) c[j] += load(x + k + j * LANES) * load(b + k + j * LANES);
    for (; k + LANES <= K; k += LANES) c[0] += load(x + k) * load(b + k);
    float sum = sum_of(c[0] + c[1] + (c[2] + c[3]));
    for (; k < K; k++) sum += x[k] * b[k];
    return sum;
}

static void product_part(team *t, int index)
{
    const args *o = t->args;
    for (int64_t n; (n = (int64_t)take(t) * o->block) < o->N;) {
        const int64_t columns = min(o->block, o->N - n);
        begin_sum(o, n, columns);
        if (o->column == 1)
            add_row_product(o->x, o->B + n, o->row, o->K, columns, o->y + n);
        else
            for (int64_t c = n; c < n + columns; c++)
                o->y[c] += scalar_product(o->x, o->B + c * o->column, o->K);
    }
}

/* Element (k, n) of B is at B[k * row + n * column]; `row` or `column` is 1. bias (N,) may be NULL.
   */
void vector_product(const float *x, const float *B, const float *bias, float *y, int64_t row,
                    int64_t column, int64_t K, int64_t N, int64_t threads)
{
    int64_t blocks = (N + COLUMNS - 1) / COLUMNS; /* as many for each thread */
    blocks = (blocks + threads - 1) / threads * threads;
    int64_t block = (N + blocks - 1) / blocks;
    block = (block + LANES - 1) / LANES * LANES;
    const args all = {x, B, bias, y, row, column, K, N, block};
    run(product_part, &all, threads);
}
