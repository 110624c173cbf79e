/* A single row times a matrix stored row by row.

   The naive loop: for (k = 0; k < K; k++) for (n = 0; n < columns; n++) y[n] += x[k] * B[k][n]; */

#pragma once
#include <stdint.h>

enum { COLUMNS = 1024 }; /* at a time, so that y stays in the first-level cache */

/* y += x B for neighbouring columns of B, whose K rows lie `row` apart. Eight rows at a time: y is
   then loaded and stored an eighth as often. */
static void add_row_product(const float *x, const float *B, int64_t row, int64_t K, int64_t columns,
                            float *restrict y)
{
    int64_t k = 0;
    for (; k + 8 <= K; k += 8, x += 8, B += 8 * row)
        for (int64_t n = 0; n < columns; n++) {
            const float *b = B + n;
            float first = x[0] * b[0] + x[1] * b[row] + (x[2] * b[2 * row] + x[3] * b[3 * row]);
            b += 4 * row;
            float second = x[4] * b[0] + x[5] * b[row] + (x[6] * b[2 * row] + x[7] * b[3 * row]);
            y[n] += first + second;
        }
    for (; k < K; k++, x++, B += row)
        for (int64_t n = 0; n < columns; n++) y[n] += x[0] * B[n];
}
