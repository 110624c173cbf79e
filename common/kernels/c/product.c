/* The product of two matrices (product in common/kernels/__init__.py).

   The naive loop:

       for (m = 0; m < M; m++)
           for (n = 0; n < N; n++) {
               C[m][n] = 0;
               for (k = 0; k < K; k++) C[m][n] += A[m][k] * B[k][n];
               C[m][n] += bias[n];
           }

   Here the loops are blocked as in Goto and van de Geijn (2008): WIDE panels of B, DEPTH rows deep,
   are packed and stay in the second-level cache while all rows of A are multiplied with them. */

#include "threads.h"
#include "tile.h"

enum { DEPTH = 256, WIDE = 16 }; /* rows and panels of B that are packed together */

typedef struct {
    const float *A, *B, *bias;
    float *C, *work;
    int64_t a_row, a_k, b_row, b_column, M, K, N, parts;
} product_args;

/* The columns of C that belong to `count` panels of B. */
static void product_columns(const product_args *o, int64_t first, int64_t count, float *packed)
{
    float transposed[ROWS * DEPTH], sums[ROWS * PANEL];
    for (int64_t k = 0; k < o->K; k += DEPTH) {
        int64_t depth = min(DEPTH, o->K - k);
        const int last = o->bias != NULL && k + depth == o->K;
        for (int64_t q = 0; q < count; q++) {
            int64_t c = (first + q) * PANEL, columns = min(PANEL, o->N - c);
            pack(packed + q * depth * PANEL, panel_width(columns),
                 o->B + k * o->b_row + c * o->b_column, o->b_row, o->b_column, depth, columns);
        }
        for (int64_t m = 0, rows; m < o->M; m += rows) {
            rows = next_rows(o->M - m);
            const float *a = o->A + m * o->a_row + k * o->a_k;
            left x = {a, o->a_row, o->a_k, 0, depth, 1};
            if (o->a_k != 1) { /* A is transposed in memory: copy its rows */
                for (int64_t d = 0; d < depth; d++)
                    for (int64_t i = 0; i < rows; i++)
                        transposed[d * rows + i] = a[d * o->a_k + i * o->a_row];
                x = (left){transposed, 1, rows, 0, depth, 1};
            }
            for (int64_t q = 0; q < count; q++) {
                int64_t c = (first + q) * PANEL, columns = min(PANEL, o->N - c);
                tile(rows, panel_width(columns), x, packed + q * depth * PANEL, sums);
                for (int64_t i = 0; i < rows; i++) {
                    float *to = o->C + (m + i) * o->N + c;
                    for (int64_t j = 0; j < columns; j++)
                        to[j] = sums[i * PANEL + j] + (k > 0 ? to[j] : 0.0f);
                    for (int64_t j = 0; last && j < columns; j++) to[j] += o->bias[c + j];
                }
            }
        }
    }
}

static void product_part(team *t, int index)
{
    const product_args *o = t->args;
    const int64_t panels = num_panels(o->N);
    float *packed = o->work + index * WIDE * DEPTH * PANEL;
    for (int64_t part; (part = take(t)) < o->parts;) {
        int64_t end = panels * (part + 1) / o->parts;
        for (int64_t p = panels * part / o->parts; p < end; p += WIDE)
            product_columns(o, p, min(WIDE, end - p), packed);
    }
}

/* C (M, N) = A (M, K) B (K, N) + bias (N,); bias may be NULL. Element (m, k) of A is at A[m * a_row
   + k * a_k], element (k, n) of B at B[k * b_row + n * b_column]. The columns are cut into `parts`,
   which the threads take. work (threads, WIDE * DEPTH, PANEL) is scratch. */
void product(const float *A, const float *B, const float *bias, float *C, float *work,
             int64_t a_row, int64_t a_k, int64_t b_row, int64_t b_column, int64_t M, int64_t K,
             int64_t N, int64_t parts, int64_t threads)
{
    product_args args = {A, B, bias, C, work, a_row, a_k, b_row, b_column, M, K, N, parts};
    run(product_part, &args, threads);
}

int64_t panel_columns(void) { return PANEL; }
int64_t product_wide(void) { return WIDE; }
int64_t product_depth(void) { return DEPTH; }
