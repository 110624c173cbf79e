/* Philox4x32-10, Salmon et al. (2011): masks (common/kernels/philox.py), and what they drop. The C
   kernel is common/kernels/c/philox.c, a round stands in common/kernels/c/philox_round.h.

   The naive loop, for block b of a stream:

       x0 = b, x1 = stream, x2 = iteration, x3 = layer;
       k0 = low(seed), k1 = high(seed);
       for (round = 0; round < 10; round++) {
           philox_round(&x0, &x1, &x2, &x3, k0, k1);
           philox_next_key(&k0, &k1);
       }
       words[4 * b ...] = x0, x1, x2, x3;

   And the masks; a draw is 8 or 16 bits of the words of stream n, from the lowest bits on:

       for (n = 0; n < N; n++)
           for (t = 0; t < T; t++)
               for (d = 0; d < D; d++) kept[n][t][d] = draw(n, t * D + d) >= threshold;

   Here each thread computes a block of a stream, and makes all draws of its 16 bytes. */

#include "philox_round.h"

static __device__ void block_of(uint32_t *words, uint64_t seed, uint32_t layer, uint32_t iteration,
                                uint32_t stream, uint32_t b)
{
    uint32_t x0 = b, x1 = stream, x2 = iteration, x3 = layer;
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
#pragma unroll
    for (int round = 0; round < ROUNDS; round++) {
        philox_round(&x0, &x1, &x2, &x3, k0, k1);
        philox_next_key(&k0, &k1);
    }
    words[0] = x0, words[1] = x1, words[2] = x2, words[3] = x3;
}

/* kept (T, N, D): the draws of stream + n, of `bytes` bytes each, follow its rows (t, d). */
extern "C" __global__ void philox_keep(uint8_t *kept, uint64_t seed, int64_t layer,
                                       int64_t iteration, int64_t stream, int64_t N, int64_t T,
                                       int64_t D, int64_t threshold, int64_t bytes)
{
    const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    const int64_t draws = 16 / bytes, blocks = (T * D + draws - 1) / draws;
    if (i >= N * blocks) return;
    const int64_t n = i / blocks, b = i % blocks;
    uint32_t words[4];
    block_of(words, seed, (uint32_t)layer, (uint32_t)iteration, (uint32_t)(stream + n), (uint32_t)b);
    int64_t t = b * draws / D, d = b * draws % D;
#pragma unroll
    for (int word = 0; word < 4; word++)
        for (int bit = 0; bit < 32; bit += 8 * (int)bytes) {
            if (t >= T) return;
            const uint32_t draw = words[word] >> bit & (bytes == 1 ? 0xff : 0xffff);
            kept[(t * N + n) * D + d] = draw >= (uint32_t)threshold;
            if (++d == D) d = 0, t++;
        }
}

/* y[i] = x[i] * kept[i] * scale; kept (period,) begins again where it ends */
extern "C" __global__ void drop(float *y, const float *x, const uint8_t *kept, float scale,
                                int64_t period, int64_t length)
{
    const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < length) y[i] = x[i] * kept[i % period] * scale;
}
