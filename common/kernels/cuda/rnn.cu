/* The plain RNN, one step without its product (common/time_layers/rnn.py).

   The naive loops, for one sequence; `A` begins as x Wx, `product` is h_prev Wh:

       for (u = 0; u < H; u++) h[u] = tanh(A[u] + b[u] + product[u]);

       for (u = 0; u < H; u++) dA[u] = (dhs[u] + dh[u]) * (1 - h[u] * h[u]);

   With `relu`, max(A, 0) stands in place of tanh, and 1 where h is above 0 in place of the slope. */

#include "elementwise.h"

extern "C" __global__ void rnn_step_forward(const float *A, const float *product, const float *b,
                                            float *h, int64_t N, int64_t H, int64_t relu)
{
    const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= N * H) return;
    const float a = A[i] + b[i % H] + product[i];
    h[i] = !relu ? fast_tanh(a) : a < 0.0f ? 0.0f : a; /* NaN stays NaN */
}

/* dh (N, H) is dA[t + 1] Wh', or the gradient of the last state. */
extern "C" __global__ void rnn_step_backward(const float *h, const float *dhs, const float *dh,
                                             float *dA, int64_t N, int64_t H, int64_t relu)
{
    const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= N * H) return;
    const float slope = !relu ? 1.0f - h[i] * h[i] : h[i] > 0.0f ? 1.0f : 0.0f;
    dA[i] = (dhs[i] + dh[i]) * slope;
}
