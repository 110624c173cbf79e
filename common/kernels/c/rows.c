/* Rows added to rows by index (common/rows.py). */

#include <stdint.h>

/* out[ids[r], d] += rows[r, d] in the order of r; element (v, d) of out is at
   out[v * row + d * column], rows (R, D). */
void add_rows(float *out, const int64_t *ids, const float *rows, int64_t row, int64_t column,
              int64_t R, int64_t D)
{
    if (column == 1) {
        for (int64_t r = 0; r < R; r++)
            for (int64_t d = 0; d < D; d++) out[ids[r] * row + d] += rows[r * D + d];
    } else { /* the rows of out lie across memory: one column after the other */
        for (int64_t d = 0; d < D; d++)
            for (int64_t r = 0; r < R; r++)
                out[ids[r] * row + d * column] += rows[r * D + d];
    }
}
