/* Passes over whole arrays (common/kernels/passes.py); the C kernels are common/kernels/c/vectors.c.

   The naive loops stand above the kernels, for i = 0 .. length - 1. Here each thread takes an element,
   or every so many-th of them. */

#include "block.h"

enum { CHUNK = 4096 }; /* elements whose squares one block adds up */

/* x[i] += a * y[i] */
extern "C" __global__ void add_scaled(float *x, float a, const float *y, int64_t length)
{
    const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < length) x[i] += a * y[i];
}

/* x[i] -= rate[i] * y[i] - pull[i] * (target[i] - x[i]) */
extern "C" __global__ void descend(float *x, const float *y, const float *target, const float *rate,
                                   const float *pull, int64_t length)
{
    const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < length) x[i] -= rate[i] * y[i] - pull[i] * (target[i] - x[i]);
}

/* sums[i / CHUNK] += y[i] * y[i] */
extern "C" __global__ void squares(const float *y, double *sums, int64_t length)
{
    const int64_t begin = (int64_t)blockIdx.x * CHUNK, end = min(begin + CHUNK, length);
    double sum = 0.0;
    for (int64_t i = begin + threadIdx.x; i < end; i += blockDim.x) sum += (double)y[i] * y[i];
    sum = sum_of_block(sum);
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

/* total += sums[i]; root = sqrt(total) */
extern "C" __global__ void root_of_sum(const double *sums, double *root, int64_t length)
{
    double sum = 0.0;
    for (int64_t i = threadIdx.x; i < length; i += blockDim.x) sum += sums[i];
    sum = sum_of_block(sum);
    if (threadIdx.x == 0) *root = sqrt(sum);
}

/* x[i] *= rate, which brings gradients of that norm to max_norm if it is longer (clip_grads of
   common/optimizer.py) */
extern "C" __global__ void clip(float *x, const double *norm, double max_norm, int64_t length)
{
    const double rate = max_norm / (*norm + 1e-6); /* 1e-6 as in PyTorch */
    if (rate >= 1.0) return;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < length;
         i += (int64_t)gridDim.x * blockDim.x)
        x[i] = (float)(x[i] * rate); /* a small rate has all its digits */
}
