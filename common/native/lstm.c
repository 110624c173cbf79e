/* The LSTM over a window (common/time_layers/recurrent.py): products with Wh and gates, step by
   step. Each thread has its own units of all four gates, so that it packs its share of Wh once, and
   the threads meet once a step, when every unit of h (or of dA) is there. */

#include "elementwise.h"
#include "threads.h"
#include "tile.h"

/* The units [begin, end) of a thread, in whole panels. */
static void share(int64_t H, team *t, int index, int64_t *begin, int64_t *end)
{
    int64_t panels = num_panels(H);
    *begin = min(H, panels * index / t->all.count * PANEL);
    *end = min(H, panels * (index + 1) / t->all.count * PANEL);
}

/* y (columns) += a (K) B, where row k of B begins at b[k * row]: for few rows packing costs more */
static void add_vector_product(float *y, const float *a, const float *b, int64_t row, int64_t K,
                               int64_t columns)
{
    for (int64_t k = 0; k < K; k++)
        for (int64_t c = 0; c < columns; c++) y[c] += a[k] * b[k * row + c];
}

/* The equations behind the gates, for some units of one row. */
static void forget_and_add(int64_t units, const float *restrict f, const float *restrict g,
                           const float *restrict i, const float *restrict o,
                           const float *restrict c_prev, float *restrict c,
                           float *restrict tanh_c, float *restrict h)
{
    for (int64_t u = 0; u < units; u++) {
        c[u] = f[u] * c_prev[u] + g[u] * i[u];
        tanh_c[u] = fast_tanh(c[u]);
        h[u] = o[u] * tanh_c[u];
    }
}

typedef struct {
    const float *Wh;
    float *gates, *hs, *cs, *tanh_cs, *packed;
    int64_t T, N, H;
} forward_args;

static void lstm_forward_part(team *t, int index)
{
    const forward_args *o = t->args;
    const int64_t N = o->N, H = o->H;
    int64_t begin, end;
    share(H, t, index, &begin, &end);
    int64_t panels = num_panels(end - begin);
    int is_packed = o->packed != NULL;
    float *packed = is_packed ? o->packed + 4 * begin * H : NULL, sums[ROWS * PANEL];
    for (int64_t j = 0; is_packed && j < 4 * panels; j++) {
        int64_t u = begin + j % panels * PANEL;
        pack(packed + j * H * PANEL, o->Wh + j / panels * H + u, 4 * H, 1, H, min(PANEL, end - u));
    }
    for (int64_t s = 0; s < o->T; s++) {
        float *gates = o->gates + s * N * 4 * H;
        const float *h_prev = o->hs + s * N * H;
        for (int64_t j = 0; is_packed && j < 4 * panels; j++) {
            int64_t u = begin + j % panels * PANEL, columns = min(PANEL, end - u);
            for (int64_t n = 0, rows; n < N; n += rows) {
                rows = next_rows(N - n);
                left x = {h_prev + n * H, H, 1, 0, H, 1};
                tile(rows, x, packed + j * H * PANEL, sums);
                for (int64_t i = 0; i < rows; i++) {
                    float *to = gates + (n + i) * 4 * H + j / panels * H + u;
                    for (int64_t c = 0; c < columns; c++) to[c] += sums[i * PANEL + c];
                }
            }
        }
        for (int64_t n = 0; n < N; n++) {
            float *f = gates + n * 4 * H, *g = f + H, *i = g + H, *out = i + H;
            for (int gate = 0; !is_packed && gate < 4; gate++)
                add_vector_product(f + gate * H + begin, h_prev + n * H, o->Wh + gate * H + begin,
                                   4 * H, H, end - begin);
            for (int64_t u = begin; u < end; u++) f[u] = fast_sigmoid(f[u]);
            for (int64_t u = begin; u < end; u++) g[u] = fast_tanh(g[u]);
            for (int64_t u = begin; u < end; u++) i[u] = fast_sigmoid(i[u]);
            for (int64_t u = begin; u < end; u++) out[u] = fast_sigmoid(out[u]);
            int64_t before = (s * N + n) * H + begin, after = before + N * H;
            forget_and_add(end - begin, f + begin, g + begin, i + begin, out + begin,
                           o->cs + before, o->cs + after, o->tanh_cs + before, o->hs + after);
        }
        meet(&t->all);
    }
}

/* gates (T, N, 4H) holds xs Wx + b and becomes f, g, i, o; hs and cs (T + 1, N, H) have the first
   state in row 0; tanh_cs (T, N, H); packed (panels of H, 4H, PANEL), or NULL for few rows. */
void lstm_forward(const float *Wh, float *gates, float *hs, float *cs, float *tanh_cs,
                  float *packed, int64_t T, int64_t N, int64_t H, int64_t threads)
{
    forward_args args = {Wh, gates, hs, cs, tanh_cs, packed, T, N, H};
    run(lstm_forward_part, &args, threads);
}

/* The same backwards; the four gates of gates and dA lie H apart. */
static void back_through_gates(int64_t units, int64_t H, const float *restrict f,
                               const float *restrict c_prev, const float *restrict tanh_c,
                               const float *restrict up, const float *restrict later,
                               float *restrict dc, float *restrict d)
{
    const float *g = f + H, *i = g + H, *o = i + H;
    for (int64_t u = 0; u < units; u++) {
        float dh = up[u] + later[u];
        float dcu = dc[u] + dh * o[u] * (1.0f - tanh_c[u] * tanh_c[u]);
        d[u] = dcu * c_prev[u] * f[u] * (1.0f - f[u]);
        d[H + u] = dcu * i[u] * (1.0f - g[u] * g[u]);
        d[2 * H + u] = dcu * g[u] * i[u] * (1.0f - i[u]);
        d[3 * H + u] = dh * tanh_c[u] * o[u] * (1.0f - o[u]);
        dc[u] = dcu * f[u];
    }
}

typedef struct {
    const float *Wh, *gates, *cs, *tanh_cs, *dhs;
    float *dh, *dc, *dA, *packed;
    int64_t T, N, H;
} backward_args;

static void lstm_backward_part(team *t, int index)
{
    const backward_args *o = t->args;
    const int64_t N = o->N, H = o->H;
    int64_t begin, end;
    share(H, t, index, &begin, &end);
    int64_t panels = num_panels(end - begin);
    float *packed = o->packed + begin * 4 * H, sums[ROWS * PANEL];
    for (int64_t j = 0; j < panels; j++) { /* Wh' */
        int64_t u = begin + j * PANEL;
        pack(packed + j * 4 * H * PANEL, o->Wh + u * 4 * H, 1, 4 * H, 4 * H, min(PANEL, end - u));
    }
    for (int64_t s = o->T - 1; s >= 0; s--) {
        float *dA = o->dA + s * N * 4 * H;
        for (int64_t n = 0; n < N; n++) {
            int64_t at = n * H + begin, row = s * N * H + at, four = (s * N + n) * 4 * H + begin;
            back_through_gates(end - begin, H, o->gates + four, o->cs + row, o->tanh_cs + row,
                               o->dhs + row, o->dh + at, o->dc + at, o->dA + four);
        }
        meet(&t->all);
        for (int64_t j = 0; j < panels; j++) {
            int64_t u = begin + j * PANEL, columns = min(PANEL, end - u);
            for (int64_t n = 0, rows; n < N; n += rows) {
                rows = next_rows(N - n);
                left x = {dA + n * 4 * H, 4 * H, 1, 0, 4 * H, 1};
                tile(rows, x, packed + j * 4 * H * PANEL, sums);
                for (int64_t i = 0; i < rows; i++)
                    memcpy(o->dh + (n + i) * H + u, sums + i * PANEL, sizeof(float) * columns);
            }
        }
    }
}

/* dA (T, N, 4H); dh and dc (N, H) come in as the gradients of the last state and go out as those of
   the first; dhs (T, N, H); packed (panels of H, 4H, PANEL). */
void lstm_backward(const float *Wh, const float *gates, const float *cs, const float *tanh_cs,
                   const float *dhs, float *dh, float *dc, float *dA, float *packed, int64_t T,
                   int64_t N, int64_t H, int64_t threads)
{
    backward_args args = {Wh, gates, cs, tanh_cs, dhs, dh, dc, dA, packed, T, N, H};
    run(lstm_backward_part, &args, threads);
}
