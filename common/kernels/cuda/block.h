/* Sums over the threads of a block, in an order that depends on nothing: the same bits in every run. */

#pragma once
#include "either.h"

extern __shared__ double shared[];

/* The sum of what the threads bring; `blockDim.x` is a power of 2. Every thread gets it. */
static __device__ double sum_of_block(double own)
{
    __syncthreads(); /* all have the sum before */
    shared[threadIdx.x] = own;
    for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
    }
    __syncthreads();
    return shared[0];
}
