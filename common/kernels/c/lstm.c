/* The LSTM over a window (common/time_layers/lstm.py); gates in the order f, g, i, o.

   The naive forward loop, for one sequence; `gates` begins as x Wx + b:

       for (t = 0; t < T; t++)
           for (u = 0; u < H; u++) {
               f = sigmoid(gates[t][u] + dot(h[t], Wh[:, u]));
               g = tanh(gates[t][H + u] + dot(h[t], Wh[:, H + u]));
               i = sigmoid(gates[t][2 * H + u] + dot(h[t], Wh[:, 2 * H + u]));
               o = sigmoid(gates[t][3 * H + u] + dot(h[t], Wh[:, 3 * H + u]));
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

   Here each thread of the team computes some of the units u for all sequences. */

#include "lstm_unit.h"
#include "recurrent.h"

/* The two lines for c and h, for the units of one thread in one row. */
static void forget_and_add(int64_t units, const float *restrict f, const float *restrict g,
                           const float *restrict i, const float *restrict o,
                           const float *restrict c_prev, float *restrict c, float *restrict h)
{
    for (int64_t u = 0; u < units; u++) {
        lstm_state next = lstm_forget_and_add(f[u], g[u], i[u], o[u], c_prev[u]);
        c[u] = next.c;
        h[u] = next.h;
    }
}

typedef struct {
    const float *xs, *Wx, *b, *Wh;
    float *gates, *hs, *cs, *packed;
    int64_t T, N, D, H;
} forward_args;

static void lstm_forward_part(team *t, int index)
{
    const forward_args *x = t->args;
    const int64_t N = x->N, H = x->H;
    slice w = share(x->Wh, x->packed, N, H, 4, t, index);
    if (w.packed == NULL)
        project(w, x->xs, x->Wx, x->b, x->T * N, x->D, x->gates);
    else
        pack_forward(w);
    for (int64_t s = 0; s < x->T; s++) {
        float *gates = x->gates + s * N * 4 * H;
        for (int gate = 0; gate < 4; gate++)
            add_product(w, gate, x->hs + s * N * H, gates + gate * H, 4 * H);
        for (int64_t n = 0; n < N; n++) {
            float *f = gates + n * 4 * H + w.begin, *g = f + H, *i = g + H, *o = i + H;
            const int64_t count = w.end - w.begin;
            for (int64_t u = 0; u < count; u++) f[u] = fast_sigmoid(f[u]);
            for (int64_t u = 0; u < count; u++) g[u] = fast_tanh(g[u]);
            for (int64_t u = 0; u < count; u++) i[u] = fast_sigmoid(i[u]);
            for (int64_t u = 0; u < count; u++) o[u] = fast_sigmoid(o[u]);
            int64_t before = (s * N + n) * H + w.begin, after = before + N * H;
            forget_and_add(count, f, g, i, o, x->cs + before, x->cs + after, x->hs + after);
        }
        meet(&t->all);
    }
}

/* gates (T, N, 4H) holds xs Wx + b on entry and f, g, i, o on return. hs and cs (T + 1, N, H) hold
   the first state in row 0. packed (panels of H, 4H, PANEL) is scratch. In a window of few rows
   packed is NULL; xs Wx + b is then computed here from xs (T, N, D). */
void lstm_forward(const float *xs, const float *Wx, const float *b, const float *Wh, float *gates,
                  float *hs, float *cs, float *packed, int64_t T, int64_t N, int64_t D, int64_t H,
                  int64_t threads)
{
    forward_args args = {xs, Wx, b, Wh, gates, hs, cs, packed, T, N, D, H};
    run(lstm_forward_part, &args, threads);
}

/* The step above for one row. Gates lie H apart in f and in d (dA). `dh` holds what the later step
   passes back on entry, and 0 on return, ready for the product. */
static void back_through_gates(int64_t units, int64_t H, const float *restrict f,
                               const float *restrict c_prev, const float *restrict c,
                               const float *restrict up, float *restrict dh, float *restrict dc,
                               float *restrict d)
{
    const float *g = f + H, *i = g + H, *o = i + H;
    for (int64_t u = 0; u < units; u++) {
        lstm_gradient of =
            lstm_back(f[u], g[u], i[u], o[u], c_prev[u], c[u], up[u] + dh[u], dc[u]);
        d[u] = of.f;
        d[H + u] = of.g;
        d[2 * H + u] = of.i;
        d[3 * H + u] = of.o;
        dc[u] = of.c_prev;
        dh[u] = 0;
    }
}

typedef struct {
    const float *Wh, *gates, *cs, *dhs;
    float *dh, *dc, *dA, *packed;
    int64_t T, N, H;
} backward_args;

static void lstm_backward_part(team *t, int index)
{
    const backward_args *x = t->args;
    const int64_t N = x->N, H = x->H;
    slice w = share(x->Wh, x->packed, N, H, 4, t, index);
    pack_backward(w);
    for (int64_t s = x->T - 1; s >= 0; s--) {
        for (int64_t n = 0; n < N; n++) {
            int64_t state = n * H + w.begin, at = s * N * H + state;
            int64_t gate = (s * N + n) * 4 * H + w.begin;
            back_through_gates(w.end - w.begin, H, x->gates + gate, x->cs + at, x->cs + at + N * H,
                               x->dhs + at, x->dh + state, x->dc + state, x->dA + gate);
        }
        meet(&t->all);
        add_transposed_product(w, x->dA + s * N * 4 * H, x->dh);
    }
}

/* Writes dA (T, N, 4H), the gradient of xs Wx + b. dh and dc (N, H) hold the gradients of the last
   states on entry and those of the first on return. dhs is (T, N, H); packed as above. */
void lstm_backward(const float *Wh, const float *gates, const float *cs, const float *dhs, float *dh,
                   float *dc, float *dA, float *packed, int64_t T, int64_t N, int64_t H,
                   int64_t threads)
{
    backward_args args = {Wh, gates, cs, dhs, dh, dc, dA, packed, T, N, H};
    run(lstm_backward_part, &args, threads);
}
