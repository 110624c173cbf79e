/* The GRU over a window (common/time_layers/gru.py); gates in the order r, z, n. The C kernel is
   common/kernels/c/gru.c, the equations of one unit stand in common/kernels/c/gru_unit.h.

   The naive forward loop, for one sequence; `gates` begins as x Wx:

       for (t = 0; t < T; t++)
           for (u = 0; u < H; u++) {
               r = sigmoid(gates[t][u] + b[u] + dot(h[t], Wh[:, u]));
               z = sigmoid(gates[t][H + u] + b[H + u] + dot(h[t], Wh[:, H + u]));
               hn[t][u] = dot(h[t], Wh[:, 2 * H + u]) + bhn[u];
               n = tanh(gates[t][2 * H + u] + b[2 * H + u] + r * hn[t][u]);
               h[t + 1][u] = (1 - z) * n + z * h[t][u];
           }

   And backward; `dh` begins as the gradient of the last state:

       for (t = T - 1; t >= 0; t--) {
           for (u = 0; u < H; u++) {
               dh[u] += dhs[t][u];
               dn = dh[u] * (1 - z) * (1 - n * n);
               dr = dn * hn[t][u] * r * (1 - r);
               dz = dh[u] * (h[t][u] - n) * z * (1 - z);
               dA[t] at (r, z, n) = dr, dz, dn;       (of x Wx + b)
               dAh[t] at (r, z, n) = dr, dz, dn * r;  (of h Wh)
               dh[u] *= z;
           }
           dh += dAh[t] Wh';
       }

   Here each thread computes some units of some sequences, and each block of a window the same units in
   every step. */

#include "gru_unit.h"
#include "window.h"

/* One unit of one sequence; its gates lie H apart in `gates` and b. r, z and n are its three of h Wh;
   n has bhn added. */
static __device__ void step_forward(float r, float z, float hn, const float *b, int64_t H,
                                    float *gates, float h_prev, float *hn_kept, float *h)
{
    r = fast_sigmoid(gates[0] + b[0] + r);
    z = fast_sigmoid(gates[H] + b[H] + z);
    float n = gru_candidate(gates[2 * H] + b[2 * H], r, hn);
    gates[0] = r, gates[H] = z, gates[2 * H] = n;
    *hn_kept = hn, *h = gru_mix(z, n, h_prev);
}

/* dh: what reaches h of this step on entry, and on return what goes to the step before, but for what
   goes through Wh */
static __device__ void step_backward(const float *gates, float hn, float h_prev, int64_t H, float dh,
                                     float *dh_prev, float *dA, float *dAh)
{
    gru_gradient d = gru_back(gates[0], gates[H], gates[2 * H], hn, h_prev, dh);
    dA[0] = dAh[0] = d.r, dA[H] = dAh[H] = d.z, dA[2 * H] = d.n, dAh[2 * H] = d.hn;
    *dh_prev = d.h_prev;
}

/* gates (T, N, 3H) holds xs Wx on entry and r, z, n on return. The window begins at h_first (N, H),
   which row 0 of hs (T + 1, N, H) gets too. hns (T, N, H) = h_prev Whn + bhn is written. A block has
   `units` units, and takes `rows` sequences and `depth` columns of h at a time. */
extern "C" __global__ void __launch_bounds__(THREADS) gru_window_forward(
    const float *Wh, const float *b, const float *bhn, const float *h_first, float *gates, float *hs,
    float *hns, unsigned *counters, int64_t T, int64_t N, int64_t H, int64_t units, int64_t rows,
    int64_t depth)
{
    const slice own = share(H, units, 3, H);
    unsigned met = 0;
    take_columns(own, Wh, H, 3);
    for (int64_t t = 0; t < T; t++) {
        const float *h_prev = t == 0 ? h_first : hs + t * N * H;
        for (int64_t first = 0; first < N; first += rows) {
            const int count = (int)min(rows, N - first);
            const int groups = multiply(own, h_prev + first * H, count, (int)depth);
            for (int i = threadIdx.x; i < count * own.count; i += blockDim.x) {
                const int row = i / own.count, u = i % own.count, unit = own.begin + u;
                const int64_t n = first + row, before = (t * N + n) * H + unit;
                if (t == 0) hs[before] = h_first[before];
                step_forward(sum_of(own, groups, count, row, 3 * u),
                             sum_of(own, groups, count, row, 3 * u + 1),
                             sum_of(own, groups, count, row, 3 * u + 2) + bhn[unit], b + unit, H,
                             gates + (t * N + n) * 3 * H + unit, hs[before], hns + before,
                             hs + before + N * H);
            }
        }
        if (t + 1 < T) meet(counters, &met);
    }
    leave(counters);
}

/* Writes dA and dAh (T, N, 3H), the gradients of xs Wx + b and of h_prev Wh. dh (N, H) holds the
   gradient of the last state on entry and that of the first on return. dhs is (T, N, H). */
extern "C" __global__ void __launch_bounds__(THREADS) gru_window_backward(
    const float *Wh, const float *gates, const float *hs, const float *hns, const float *dhs, float *dh,
    float *dA, float *dAh, unsigned *counters, int64_t T, int64_t N, int64_t H, int64_t units,
    int64_t rows, int64_t depth)
{
    const slice own = share(H, units, 1, 3 * H);
    unsigned met = 0;
    take_rows(own, Wh);
    for (int64_t t = T - 1; t >= 0; t--) {
        for (int64_t i = threadIdx.x; i < N * own.count; i += blockDim.x) {
            const int64_t n = i / own.count, state = n * H + own.begin + i % own.count;
            const int64_t at = t * N * H + state, gate = at + (t * N + n) * 2 * H;
            step_backward(gates + gate, hns[at], hs[at], H, dh[state] + dhs[at], dh + state, dA + gate,
                          dAh + gate);
        }
        meet(counters, &met);
        for (int64_t first = 0; first < N; first += rows) {
            const int count = (int)min(rows, N - first);
            const int groups = multiply(own, dAh + (t * N + first) * 3 * H, count, (int)depth);
            for (int i = threadIdx.x; i < count * own.count; i += blockDim.x) {
                const int row = i / own.count, u = i % own.count;
                dh[(first + row) * H + own.begin + u] += sum_of(own, groups, count, row, u);
            }
        }
        __syncthreads();
    }
    leave(counters);
}

/* One step without its product: gates (N, 3H) holds x Wx, `product` (N, 3H) is h_prev Wh. */
extern "C" __global__ void gru_step_forward(const float *product, const float *b, const float *bhn,
                                            const float *h_prev, float *gates, float *hn, float *h,
                                            int64_t N, int64_t H)
{
    const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= N * H) return;
    const int64_t u = i % H, gate = i + i / H * 2 * H;
    const float *p = product + gate;
    step_forward(p[0], p[H], p[2 * H] + bhn[u], b + u, H, gates + gate, h_prev[i], hn + i, h + i);
}

/* One step without its product: what reaches h is dhs + dh + `product`, dAh[t + 1] Wh' (0 after the
   last step). */
extern "C" __global__ void gru_step_backward(const float *gates, const float *hn, const float *h_prev,
                                             const float *dhs, const float *product, float *dh,
                                             float *dA, float *dAh, int64_t N, int64_t H)
{
    const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= N * H) return;
    const int64_t gate = i + i / H * 2 * H;
    step_backward(gates + gate, hn[i], h_prev[i], H, dh[i] + product[i] + dhs[i], dh + i, dA + gate,
                  dAh + gate);
}
