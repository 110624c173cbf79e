/* Rows of a table: those of some ids, and gradients added to them (common/time_layers/embedding.py,
   add_rows in common/kernels/passes.py). The C kernel of the second is common/kernels/c/rows.c.

   The naive loops:

       for (r = 0; r < R; r++)
           for (d = 0; d < D; d++) out[r][d] = table[ids[r]][d] * (kept[ids[r]] * scale);

       for (r = 0; r < R; r++)
           for (d = 0; d < D; d++) table[ids[r]][d] += rows[r][d];

   For the second the ids are sorted, by an `order` that leaves equal ones as they stand. The block of
   the first of several equal ids adds up their rows one by one, in the order of r, and nobody else
   writes to that row of the table. */

#include "either.h"

template <class Id>
static __device__ void take(float *out, const float *table, const Id *ids, const uint8_t *kept,
                            float scale, int64_t R, int64_t D)
{
    const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= R * D) return;
    const int64_t id = ids[i / D];
    out[i] = table[id * D + i % D] * (kept[id] * scale);
}

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

extern "C" __global__ void take_rows_int32(float *out, const float *table, const int *ids,
                                           const uint8_t *kept, float scale, int64_t R, int64_t D)
{
    take(out, table, ids, kept, scale, R, D);
}

extern "C" __global__ void take_rows_int64(float *out, const float *table, const int64_t *ids,
                                           const uint8_t *kept, float scale, int64_t R, int64_t D)
{
    take(out, table, ids, kept, scale, R, D);
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
