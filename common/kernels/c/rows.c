/* The gradient of an embedding (add_rows in common/kernels/passes.py).

   The naive loop:

       for (r = 0; r < R; r++)
           for (d = 0; d < D; d++) out[ids[r]][d] += rows[r][d];

   One thread: the order of the additions, and with it the rounding, is that of r. */

#include <stdint.h>

/* Element (v, d) of out is at out[v * row + d * column]; rows (R, D). */
void add_rows(float *out, const int64_t *ids, const float *rows, int64_t row, int64_t column,
              int64_t R, int64_t D)
{
    if (column == 1) {
        for (int64_t r = 0; r < R; r++)
            for (int64_t d = 0; d < D; d++) out[ids[r] * row + d] += rows[r * D + d];
    } else { /* out is transposed in memory: column by column stays in cache */
        for (int64_t d = 0; d < D; d++)
            for (int64_t r = 0; r < R; r++)
                out[ids[r] * row + d * column] += rows[r * D + d];
    }
}
