/* What the windows of the LSTM and the GRU share: the slice of Wh that a block keeps, the product with
   it, and the barrier at which the blocks meet.

   The naive loops, for sequence n and column c of a slice B (columns, K):

       for (k = 0; k < K; k++) y[n][c] += A[n][k] * B[c][k];

   Each block owns some units for the whole window. What it needs of Wh, the columns of its units on
   the way forward and their rows on the way back, it copies into its shared memory once. In every
   step it reads all of A, which all blocks wrote in the step before (h, or the gradient of the
   gates), `depth` columns at a time, and computes the sums of its units.

   A group of threads covers all sums, each thread a tile of 4 x 4, for every so many-th four of k. The
   partial sums of the groups are then added in their order: the same bits in every run. */

#pragma once
#include "elementwise.h"

enum { TILE = 4, THREADS = 512 }; /* of a block */

#ifndef WAIT_WHILE /* where blocks are not on a device, there is one that lets others run */
#define WAIT_WHILE(condition) \
    while (condition) { \
    }
#endif

extern __shared__ __align__(16) float shared[]; /* read by float4 */

/* Returns when all blocks have called it; what they wrote before can be read then, by __ldcg.
   `counters` (2,) are 0 before the launch. `met` is how often blocks have arrived, a block's own. */
static __device__ void meet(unsigned *counters, unsigned *met)
{
    __syncthreads();
    *met += gridDim.x;
    if (threadIdx.x == 0) {
        __threadfence();
        atomicAdd(counters, 1u);
        WAIT_WHILE(*(volatile unsigned *)counters < *met);
        __threadfence();
    }
    __syncthreads();
}

/* The last block to leave sets the counters back to 0 for the next launch. */
static __device__ void leave(unsigned *counters)
{
    if (threadIdx.x == 0 && atomicAdd(counters + 1, 1u) == gridDim.x - 1)
        counters[0] = counters[1] = 0;
}

/* What lies `count` floats apart in shared memory begins in another bank, and at whole float4s. */
static __device__ int padded(int count) { return (count + 3) / 4 * 4 | 4; }

typedef struct {
    int begin, count; /* the units of this block */
    int columns, K;   /* of its slice B */
    float *scratch;   /* behind B: a part of A, then partial sums */
} slice;

static __device__ slice share(int64_t H, int64_t units, int columns_of_unit, int64_t K)
{
    slice own;
    own.begin = (int)(blockIdx.x * units);
    own.count = (int)min(units, H - own.begin);
    own.columns = own.count * columns_of_unit;
    own.K = (int)K;
    own.scratch = shared + units * columns_of_unit * padded((int)K);
    return own;
}

/* B[u * gates + gate][k] = Wh[k][gate * H + u], padded with zeros. Wh (H, gates * H). */
static __device__ void take_columns(slice own, const float *Wh, int64_t H, int gates)
{
    const int stride = padded(own.K);
    for (int i = threadIdx.x; i < own.columns * stride; i += blockDim.x) {
        const int c = i % own.columns, k = i / own.columns;
        const int64_t column = c % gates * H + own.begin + c / gates;
        shared[c * stride + k] = k < own.K ? Wh[k * gates * H + column] : 0.0f;
    }
}

/* B[u][k] = Wh[u][k], padded with zeros. Wh (H, K). */
static __device__ void take_rows(slice own, const float *Wh)
{
    const int stride = padded(own.K);
    for (int i = threadIdx.x; i < own.columns * stride; i += blockDim.x) {
        const int c = i / stride, k = i % stride;
        shared[i] = k < own.K ? Wh[(own.begin + c) * (int64_t)own.K + k] : 0.0f;
    }
}

/* scratch[n][k] = A[n][from + k], padded with zeros up to a multiple of 4. A (rows, own.K). */
static __device__ void take_part(slice own, const float *A, int rows, int from, int count, int stride)
{
    const int width = (count + 3) / 4 * 4, down = blockDim.x / width, right = blockDim.x % width;
    int n = threadIdx.x / width, k = threadIdx.x % width;
    while (n < rows) {
        own.scratch[n * stride + k] = k < count ? __ldcg(A + n * (int64_t)own.K + from + k) : 0.0f;
        n += down, k += right;
        if (k >= width) k -= width, n++;
    }
}

/* Leaves partial sums of y = A B' in scratch[group][n][c]; returns how many groups there are. */
static __device__ int multiply(slice own, const float *A, int rows, int depth)
{
    const int across = (rows + TILE - 1) / TILE, down = (own.columns + TILE - 1) / TILE;
    const int tiles = across * down, groups = blockDim.x / tiles;
    const int group = threadIdx.x / tiles, tile = threadIdx.x % tiles;
    const int stride = padded(depth), stride_of_B = padded(own.K);
    int rows_at[TILE], columns_at[TILE]; /* of a tile at the edge, some are there twice */
    float sums[TILE][TILE];
#pragma unroll
    for (int i = 0; i < TILE; i++) {
        rows_at[i] = min(tile % across + i * across, rows - 1) * stride;
        columns_at[i] = min(tile / across + i * down, own.columns - 1) * stride_of_B;
#pragma unroll
        for (int j = 0; j < TILE; j++) sums[i][j] = 0.0f;
    }
    for (int from = 0; from < own.K; from += depth) {
        const int count = min(depth, own.K - from);
        __syncthreads(); /* all have read what is in scratch */
        take_part(own, A, rows, from, count, stride);
        __syncthreads();
        for (int k = 4 * group; k < count && group < groups; k += 4 * groups) {
            float4 a[TILE], b[TILE];
#pragma unroll
            for (int i = 0; i < TILE; i++) {
                a[i] = *(const float4 *)(own.scratch + rows_at[i] + k);
                b[i] = *(const float4 *)(shared + columns_at[i] + from + k);
            }
#pragma unroll
            for (int i = 0; i < TILE; i++)
#pragma unroll
                for (int j = 0; j < TILE; j++)
                    sums[i][j] += a[i].x * b[j].x + a[i].y * b[j].y + a[i].z * b[j].z + a[i].w * b[j].w;
        }
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < TILE; i++) {
        const int n = tile % across + i * across;
#pragma unroll
        for (int j = 0; j < TILE; j++) {
            const int c = tile / across + j * down;
            if (group < groups && n < rows && c < own.columns)
                own.scratch[(group * rows + n) * own.columns + c] = sums[i][j];
        }
    }
    __syncthreads();
    return groups;
}

/* y[n][c ... c + 3] from the partial sums of `multiply`; c and own.columns are multiples of 4 */
static __device__ float4 sums_of(slice own, int groups, int rows, int n, int c)
{
    const float *part = own.scratch + n * own.columns + c;
    float4 sums = {0.0f, 0.0f, 0.0f, 0.0f};
    for (int group = 0; group < groups; group++) {
        const float4 more = *(const float4 *)(part + group * rows * own.columns);
        sums.x += more.x, sums.y += more.y, sums.z += more.z, sums.w += more.w;
    }
    return sums;
}

/* y[n][c] from them */
static __device__ float sum_of(slice own, int groups, int rows, int n, int c)
{
    const float *part = own.scratch + n * own.columns + c;
    float sum = 0.0f;
    for (int group = 0; group < groups; group++) sum += part[group * rows * own.columns];
    return sum;
}
