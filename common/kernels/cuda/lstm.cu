/* The LSTM over a window (common/time_layers/lstm.py); gates in the order f, g, i, o. The C kernel is
   common/kernels/c/lstm.c, the equations of one unit stand in common/kernels/c/lstm_unit.h.

   The naive forward loop, for one sequence; `gates` begins as x Wx:

       for (t = 0; t < T; t++)
           for (u = 0; u < H; u++) {
               f = sigmoid(gates[t][u] + b[u] + dot(h[t], Wh[:, u]));
               g = tanh(gates[t][H + u] + b[H + u] + dot(h[t], Wh[:, H + u]));
               i = sigmoid(gates[t][2 * H + u] + b[2 * H + u] + dot(h[t], Wh[:, 2 * H + u]));
               o = sigmoid(gates[t][3 * H + u] + b[3 * H + u] + dot(h[t], Wh[:, 3 * H + u]));
               c[t + 1][u] = f * c[t][u] + g * i;
               h[t + 1][u] = o * tanh(c[t + 1][u]);
           }

   And backward; `dh` and `dc` begin as the gradients of the last state:

       for (t = T - 1; t >= 0; t--) {
           for (u = 0; u < H; u++) {
               dh[u] += dhs[t][u];
               dc[u] += dh[u] * o * (1 - tanh(c[t + 1][u])^2);
               dA[t] at f = dc[u] * c[t][u] * f * (1 - f);
               dA[t] at g = dc[u] * i * (1 - g * g);
               dA[t] at i = dc[u] * g * i * (1 - i);
               dA[t] at o = dh[u] * tanh(c[t + 1][u]) * o * (1 - o);
               dc[u] *= f;
           }
           dh = dA[t] Wh';
       }

   Here each thread computes some units of some sequences, and each block of a window the same units in
   every step. */

#include "lstm_unit.h"
#include "window.h"

/* One unit of one sequence; its gates lie H apart in `gates` and b. `sums` are its four of h Wh. */
static __device__ void step_forward(float4 sums, const float *b, int64_t H, float *gates,
                                    float c_prev, float *c, float *h)
{
    float f = fast_sigmoid(gates[0] + b[0] + sums.x);
    float g = fast_tanh(gates[H] + b[H] + sums.y);
    float i = fast_sigmoid(gates[2 * H] + b[2 * H] + sums.z);
    float o = fast_sigmoid(gates[3 * H] + b[3 * H] + sums.w);
    lstm_state next = lstm_forget_and_add(f, g, i, o, c_prev);
    gates[0] = f, gates[H] = g, gates[2 * H] = i, gates[3 * H] = o;
    *c = next.c, *h = next.h;
}

static __device__ void step_backward(const float *gates, float c_prev, float c, float dh, int64_t H,
                                     float *dc, float *dA)
{
    lstm_gradient d = lstm_back(gates[0], gates[H], gates[2 * H], gates[3 * H], c_prev, c, dh, *dc);
    dA[0] = d.f, dA[H] = d.g, dA[2 * H] = d.i, dA[3 * H] = d.o;
    *dc = d.c_prev;
}

/* gates (T, N, 4H) holds xs Wx on entry and f, g, i, o on return. The window begins at h_first and
   c_first (N, H), which row 0 of hs and cs (T + 1, N, H) get too. A block has `units` units, and takes
   `rows` sequences and `depth` columns of h at a time. */
extern "C" __global__ void __launch_bounds__(THREADS) lstm_window_forward(
    const float *Wh, const float *b, const float *h_first, const float *c_first, float *gates, float *hs,
    float *cs, unsigned *counters, int64_t T, int64_t N, int64_t H, int64_t units, int64_t rows,
    int64_t depth)
{
    const slice own = share(H, units, 4, H);
    unsigned met = 0;
    take_columns(own, Wh, H, 4);
    for (int64_t t = 0; t < T; t++) {
        const float *h_prev = t == 0 ? h_first : hs + t * N * H;
        for (int64_t first = 0; first < N; first += rows) {
            const int count = (int)min(rows, N - first);
            const int groups = multiply(own, h_prev + first * H, count, (int)depth);
            for (int i = threadIdx.x; i < count * own.count; i += blockDim.x) {
                const int row = i / own.count, u = i % own.count, unit = own.begin + u;
                const int64_t n = first + row, before = (t * N + n) * H + unit, after = before + N * H;
                const float4 sums = sums_of(own, groups, count, row, 4 * u);
                if (t == 0) {
                    hs[before] = h_first[before];
                    cs[before] = c_first[before];
                }
                step_forward(sums, b + unit, H, gates + (t * N + n) * 4 * H + unit, cs[before],
                             cs + after, hs + after);
            }
        }
        if (t + 1 < T) meet(counters, &met);
    }
    leave(counters);
}

/* Writes dA (T, N, 4H), the gradient of xs Wx + b. dh and dc (N, H) hold the gradients of the last
   states on entry and those of the first on return. dhs is (T, N, H). */
extern "C" __global__ void __launch_bounds__(THREADS) lstm_window_backward(
    const float *Wh, const float *gates, const float *cs, const float *dhs, float *dh, float *dc,
    float *dA, unsigned *counters, int64_t T, int64_t N, int64_t H, int64_t units, int64_t rows,
    int64_t depth)
{
    const slice own = share(H, units, 1, 4 * H);
    unsigned met = 0;
    take_rows(own, Wh);
    for (int64_t t = T - 1; t >= 0; t--) {
        for (int64_t i = threadIdx.x; i < N * own.count; i += blockDim.x) {
            const int64_t n = i / own.count, state = n * H + own.begin + i % own.count;
            const int64_t at = t * N * H + state, gate = at + (t * N + n) * 3 * H;
            step_backward(gates + gate, cs[at], cs[at + N * H], dh[state] + dhs[at], H, dc + state,
                          dA + gate);
        }
        meet(counters, &met);
        for (int64_t first = 0; first < N; first += rows) {
            const int count = (int)min(rows, N - first);
            const int groups = multiply(own, dA + (t * N + first) * 4 * H, count, (int)depth);
            for (int i = threadIdx.x; i < count * own.count; i += blockDim.x) {
                const int row = i / own.count, u = i % own.count;
                dh[(first + row) * H + own.begin + u] = sum_of(own, groups, count, row, u);
            }
        }
        __syncthreads();
    }
    leave(counters);
}

/* One step without its product: gates (N, 4H) holds x Wx, `product` (N, 4H) is h_prev Wh. */
extern "C" __global__ void lstm_step_forward(const float *product, const float *b,
                                             const float *c_prev, float *gates, float *c, float *h,
                                             int64_t N, int64_t H)
{
    const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= N * H) return;
    const int64_t u = i % H, gate = i + i / H * 3 * H;
    const float *p = product + gate;
    const float4 sums = {p[0], p[H], p[2 * H], p[3 * H]};
    step_forward(sums, b + u, H, gates + gate, c_prev[i], c + i, h + i);
}

/* One step without its product: dh (N, H) is dA[t + 1] Wh', or the gradient of the last state. */
extern "C" __global__ void lstm_step_backward(const float *gates, const float *c_prev, const float *c,
                                              const float *dhs, const float *dh, float *dc, float *dA,
                                              int64_t N, int64_t H)
{
    const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= N * H) return;
    const int64_t gate = i + i / H * 3 * H;
    step_backward(gates + gate, c_prev[i], c[i], dh[i] + dhs[i], H, dc + i, dA + gate);
}
