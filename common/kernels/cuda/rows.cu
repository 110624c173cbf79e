/* The gradient of an embedding (add_rows in common/kernels/passes.py); the C kernel is
   common/kernels/c/rows.c.

   The naive loop:

       for (r = 0; r < R; r++)
           for (d = 0; d < D; d++) table[ids[r]][d] += rows[r][d];

   Here the ids are sorted, by an `order` that leaves equal ones as they stand. The block of the first
   of several equal ids adds up their rows one by one, in the order of r, and nobody else writes to that
   row of the table. */

#include "either.h"

/* Element (v, d) of the table is at table[v * row + d * column]; ids and order (R,), rows (R, D). */
template <class Id>
static __device__ void add(float *table, const Id *ids, const int64_t *order, const float *rows,
                           int64_t row, int64_t column, int64_t R, int64_t D)
{
    const int64_t first = blockIdx.x;
    const Id id = ids[order[first]];
    if (first > 0 && ids[order[first - 1]] == id) return;
    for (int64_t d = threadIdx.x; d < D; d += blockDim.x) {
        float *to = table + id * row + d * column, sum = *to;
        for (int64_t k = first; k < R && ids[order[k]] == id; k++) sum += rows[order[k] * D + d];
        *to = sum;
    }
}

extern "C" __global__ void add_rows_int32(float *table, const int *ids, const int64_t *order,
                                          const float *rows, int64_t row, int64_t column, int64_t R,
                                          int64_t D)
{
    add(table, ids, order, rows, row, column, R, D);
}

extern "C" __global__ void add_rows_int64(float *table, const int64_t *ids, const int64_t *order,
                                          const float *rows, int64_t row, int64_t column, int64_t R,
                                          int64_t D)
{
    add(table, ids, order, rows, row, column, R, D);
}
