/* The GRU over a window (common/time_layers/gru.py); gates in the order r, z, n.

   The naive forward loop, for one sequence; `gates` begins as x Wx + b:

       for (t = 0; t < T; t++)
           for (u = 0; u < H; u++) {
               r = sigmoid(gates[t][u] + dot(h[t], Wh[:, u]));
               z = sigmoid(gates[t][H + u] + dot(h[t], Wh[:, H + u]));
               hn[t][u] = dot(h[t], Wh[:, 2 * H + u]) + bhn[u];
               n = tanh(gates[t][2 * H + u] + r * hn[t][u]);
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

   Here each thread of the team computes some of the units u for all sequences. */

#include "gru_unit.h"
#include "recurrent.h"

typedef struct {
    const float *xs, *Wx, *b, *Wh, *bhn;
    float *gates, *hs, *hns, *packed;
    int64_t T, N, D, H;
} forward_args;

/* n = tanh(n + r * hn) and h = (1 - z) n + z h_prev, for the units of one thread in one row */
static void mix(int64_t units, const float *restrict r, const float *restrict z, float *restrict n,
                const float *restrict hn, const float *restrict h_prev, float *restrict h)
{
    for (int64_t u = 0; u < units; u++) {
        n[u] = gru_candidate(n[u], r[u], hn[u]);
        h[u] = gru_mix(z[u], n[u], h_prev[u]);
    }
}

static void gru_forward_part(team *t, int index)
{
    const forward_args *x = t->args;
    const int64_t N = x->N, H = x->H;
    slice w = share(x->Wh, x->packed, N, H, 3, t, index);
    const int64_t count = w.end - w.begin;
    if (w.packed == NULL)
        project(w, x->xs, x->Wx, x->b, x->T * N, x->D, x->gates);
    else
        pack_forward(w);
    for (int64_t s = 0; s < x->T; s++) {
        float *gates = x->gates + s * N * 3 * H, *hn = x->hns + s * N * H;
        const float *h_prev = x->hs + s * N * H;
        for (int64_t n = 0; n < N; n++)
            memcpy(hn + n * H + w.begin, x->bhn + w.begin, sizeof(float) * count);
        add_product(w, 0, h_prev, gates, 3 * H);
        add_product(w, 1, h_prev, gates + H, 3 * H);
        add_product(w, 2, h_prev, hn, H);
        for (int64_t row = 0; row < N; row++) {
            float *r = gates + row * 3 * H + w.begin, *z = r + H, *n = z + H;
            for (int64_t u = 0; u < count; u++) r[u] = fast_sigmoid(r[u]);
            for (int64_t u = 0; u < count; u++) z[u] = fast_sigmoid(z[u]);
            int64_t at = row * H + w.begin, after = (s + 1) * N * H + at;
            mix(count, r, z, n, hn + at, h_prev + at, x->hs + after);
        }
        meet(&t->all);
    }
}

/* gates (T, N, 3H) holds xs Wx + b on entry and r, z, n on return. hns (T, N, H) = h_prev Whn + bhn
   is written. hs (T + 1, N, H) holds the first state in row 0. packed (panels of H, 3H, PANEL) is
   scratch. In a window of few rows packed is NULL; xs Wx + b is then computed here from xs (T, N,
   D). */
void gru_forward(const float *xs, const float *Wx, const float *b, const float *Wh, const float *bhn,
                 float *gates, float *hs, float *hns, float *packed, int64_t T, int64_t N, int64_t D,
                 int64_t H, int64_t threads)
{
    forward_args args = {xs, Wx, b, Wh, bhn, gates, hs, hns, packed, T, N, D, H};
    run(gru_forward_part, &args, threads);
}

/* The step above for one row. Gates lie H apart in r, d (dA) and d_side (dAh). `dh` holds what the
   later step passes back on entry, and on return the part that does not go through Wh. */
static void back_through_gates(int64_t units, int64_t H, const float *restrict r,
                               const float *restrict hn, const float *restrict h_prev,
                               const float *restrict up, float *restrict dh, float *restrict d,
                               float *restrict d_side)
{
    const float *z = r + H, *n = z + H;
    for (int64_t u = 0; u < units; u++) {
        gru_gradient of = gru_back(r[u], z[u], n[u], hn[u], h_prev[u], up[u] + dh[u]);
        d[u] = d_side[u] = of.r;
        d[H + u] = d_side[H + u] = of.z;
        d[2 * H + u] = of.n;
        d_side[2 * H + u] = of.hn;
        dh[u] = of.h_prev;
    }
}

typedef struct {
    const float *Wh, *gates, *hs, *hns, *dhs;
    float *dh, *dA, *dAh, *packed;
    int64_t T, N, H;
} backward_args;

static void gru_backward_part(team *t, int index)
{
    const backward_args *x = t->args;
    const int64_t N = x->N, H = x->H;
    slice w = share(x->Wh, x->packed, N, H, 3, t, index);
    pack_backward(w);
    for (int64_t s = x->T - 1; s >= 0; s--) {
        for (int64_t n = 0; n < N; n++) {
            int64_t state = n * H + w.begin, at = s * N * H + state;
            int64_t gate = (s * N + n) * 3 * H + w.begin;
            back_through_gates(w.end - w.begin, H, x->gates + gate, x->hns + at, x->hs + at,
                               x->dhs + at, x->dh + state, x->dA + gate, x->dAh + gate);
        }
        meet(&t->all);
        add_transposed_product(w, x->dAh + s * N * 3 * H, x->dh);
    }
}

/* Writes dA and dAh (T, N, 3H), the gradients of xs Wx + b and of h_prev Wh. dh (N, H) holds the
   gradient of the last state on entry and that of the first on return. dhs is (T, N, H). */
void gru_backward(const float *Wh, const float *gates, const float *hs, const float *hns,
                  const float *dhs, float *dh, float *dA, float *dAh, float *packed, int64_t T,
                  int64_t N, int64_t H, int64_t threads)
{
    backward_args args = {Wh, gates, hs, hns, dhs, dh, dA, dAh, packed, T, N, H};
    run(gru_backward_part, &args, threads);
}
