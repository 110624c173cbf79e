/* y = x B for a single row x (common/products.py). Each element of B is used once, so that all there
   is to do is to read B from end to end: each thread takes some of the rows as they lie in memory. */

#include "threads.h"
#include "tile.h"

enum { PARTS = 4, COLUMNS = 256 };

typedef struct {
    const float *x, *B;
    float *y, *work;
    int64_t row, column, K, N;
} args;

/* The rows of B lie one after the other: y = x[k] times row k, summed for some k */
static void sum_of_rows(const args *o, int64_t begin, int64_t end, float *restrict y)
{
    memset(y, 0, sizeof(float) * o->N);
    int64_t k = begin;
    for (; k + 4 <= end; k += 4) { /* four at a time, so that y is not the most of the traffic */
        const float *restrict b0 = o->B + k * o->row, *restrict b1 = b0 + o->row;
        const float *restrict b2 = b1 + o->row, *restrict b3 = b2 + o->row;
        const float *x = o->x + k;
        for (int64_t n = 0; n < o->N; n++)
            y[n] += x[0] * b0[n] + x[1] * b1[n] + (x[2] * b2[n] + x[3] * b3[n]);
    }
    for (; k < end; k++) {
        const float *restrict b = o->B + k * o->row;
        for (int64_t n = 0; n < o->N; n++) y[n] += o->x[k] * b[n];
    }
}

static void by_rows(team *t, int index)
{
    const args *o = t->args;
    for (int64_t part; (part = take(t)) < PARTS;)
        sum_of_rows(o, o->K * part / PARTS, o->K * (part + 1) / PARTS, o->work + part * o->N);
    meet(&t->all);
    const float *p = o->work;
    const int64_t N = o->N, count = t->all.count;
    for (int64_t n = N * index / count; n < N * (index + 1) / count; n++)
        o->y[n] = p[n] + p[N + n] + (p[2 * N + n] + p[3 * N + n]);
}

static float sum_of(vec v)
{
    float part[LANES];
    store(part, v);
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int j = 0; j < half; j++) part[j] += part[j + half];
    return part[0];
}

/* In four vectors of sums, as one would wait for itself. */
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

/* The columns of B lie one after the other. */
static void by_columns(team *t, int index)
{
    const args *o = t->args;
    for (int64_t n; (n = (int64_t)take(t) * COLUMNS) < o->N;)
        for (int64_t end = min(n + COLUMNS, o->N); n < end; n++)
            o->y[n] = scalar_product(o->x, o->B + n * o->column, o->K);
}

/* Element (k, n) of B is at B[k * row + n * column], one of the two is 1; work (PARTS, N). */
void vector_product(const float *x, const float *B, float *y, float *work, int64_t row,
                    int64_t column, int64_t K, int64_t N, int64_t threads)
{
    const args all = {x, B, y, work, row, column, K, N};
    if (column == 1)
        run(by_rows, &all, min(threads, PARTS));
    else
        run(by_columns, &all, threads);
}

int64_t vector_parts(void) { return PARTS; }
