/* Softmax with loss (common/time_layers/output.py), from scores that a product has left.

   The naive loop, for row r, which is step t of sequence n; `targets` is how many targets count:

       most = max(S[r][v] + b[v]);
       for (v = 0; v < V; v++) sum += exp(S[r][v] + b[v] - most);
       losses[r] = log(sum) - (S[r][ts[n][t]] + b[ts[n][t]] - most);
       for (v = 0; v < V; v++)
           S[r][v] = (exp(S[r][v] + b[v] - most) / sum - (v == ts[n][t])) / targets;

   Losses and gradients of a target that is ignored are 0. Here a block takes a row and reads it
   twice: once for the largest score and the sum, which each thread keeps relative to the largest that
   it has seen, and once for the gradient. */

#include "elementwise.h"

typedef struct {
    float most, sum; /* of exp(score - most) */
    int targets;
} part;

extern __shared__ __align__(8) part shared[]; /* mean_loss has doubles there */

static __device__ part join(part a, part b)
{
    part both;
    both.most = a.most > b.most ? a.most : b.most;
    both.sum = a.sum * fast_exp(a.most - both.most) + b.sum * fast_exp(b.most - both.most);
    both.targets = a.targets + b.targets;
    return both;
}

/* What all threads have, put together in an order that depends on nothing; blockDim.x is a power of 2.
   */
static __device__ part of_block(part own)
{
    shared[threadIdx.x] = own;
    for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half)
            shared[threadIdx.x] = join(shared[threadIdx.x], shared[threadIdx.x + half]);
    }
    __syncthreads();
    return shared[0];
}

template <class Id>
static __device__ void row(float *S, const float *b, const Id *ts, double *losses, int64_t N,
                           int64_t to_n, int64_t to_t, int64_t ignored, int64_t V, int64_t gradient)
{
    const int64_t r = blockIdx.x, R = gridDim.x;
    const int64_t target = ts[r % N * to_n + r / N * to_t];
    float *s = S + r * V;
    part own = {-3.402823466e38f, 0.0f, 0}; /* the least float */
    for (int64_t v = threadIdx.x; v < V; v += blockDim.x) {
        const float score = s[v] + b[v];
        if (score > own.most) {
            own.sum = own.sum * fast_exp(own.most - score) + 1.0f;
            own.most = score;
        } else {
            own.sum += fast_exp(score - own.most);
        }
    }
    for (int64_t k = threadIdx.x; k < R; k += blockDim.x)
        own.targets += ts[k % N * to_n + k / N * to_t] != ignored;
    /* A target that is not there makes the loss NaN: the host sees it at its next look. */
    const bool there = target >= 0 && target < V;
    const float of_target = there ? s[target] + b[target] : 0.0f / 0.0f;
    const part all = of_block(own); /* behind its barriers nobody reads the target's score any more */
    const bool counts = target != ignored;
    if (threadIdx.x == 0) {
        const double loss = log((double)all.sum) - ((double)of_target - all.most);
        losses[r] = !counts ? 0.0 : loss < 0.0 ? 0.0 : loss;
        if (r == 0) losses[R] = all.targets;
    }
    if (!gradient) return;
    const float weight = counts ? 1.0f / all.targets : 0.0f, by = weight / all.sum;
    for (int64_t v = threadIdx.x; v < V; v += blockDim.x)
        s[v] = fast_exp(s[v] + b[v] - all.most) * by - (v == target ? weight : 0.0f);
}

/* S (T N, V) is read, and becomes the gradient of the mean loss if `gradient` is not 0. Element (n, t)
   of the targets is at ts[n * to_n + t * to_t]. losses (T N + 1,): the rows' losses, and how many
   targets count. A block for each row. */
extern "C" __global__ void softmax_with_loss_int32(float *S, const float *b, const int *ts,
                                                   double *losses, int64_t N, int64_t to_n,
                                                   int64_t to_t, int64_t ignored, int64_t V,
                                                   int64_t gradient)
{
    row(S, b, ts, losses, N, to_n, to_t, ignored, V, gradient);
}

extern "C" __global__ void softmax_with_loss_int64(float *S, const float *b, const int64_t *ts,
                                                   double *losses, int64_t N, int64_t to_n,
                                                   int64_t to_t, int64_t ignored, int64_t V,
                                                   int64_t gradient)
{
    row(S, b, ts, losses, N, to_n, to_t, ignored, V, gradient);
}

/* loss = (losses[0] + ... + losses[R - 1]) / losses[R]; 0 where no target counts. One block. */
extern "C" __global__ void mean_loss(const double *losses, double *loss, int64_t R)
{
    double *sums = (double *)shared, sum = 0.0;
    for (int64_t r = threadIdx.x; r < R; r += blockDim.x) sum += losses[r];
    sums[threadIdx.x] = sum;
    for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
    }
    if (threadIdx.x == 0) *loss = losses[R] > 0.0 ? sums[0] / losses[R] : 0.0;
}
