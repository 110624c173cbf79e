/* What the time loops of the LSTM and the GRU share: their products with Wh (H, gates * H).

   Each thread has its own units of every gate, so that it packs its share of Wh once for a window,
   and the threads meet once a step, when every unit of h (or of dA) is there. */

#pragma once
#include "threads.h"
#include "tile.h"

typedef struct {
    const float *Wh;
    float *packed;       /* room for all of Wh by panels; NULL where the products are made already */
    int64_t N, H, gates; /* sequences, units, gates */
    int64_t begin, end;  /* the units of this thread */
} slice;

/* The share of a thread, in whole panels. */
static slice share(const float *Wh, float *packed, int64_t N, int64_t H, int64_t gates, team *t,
                   int index)
{
    int64_t panels = num_panels(H);
    int64_t begin = min(H, panels * index / t->all.count * PANEL);
    int64_t end = min(H, panels * (index + 1) / t->all.count * PANEL);
    return (slice){Wh, packed == NULL ? NULL : packed + begin * gates * H, N, H, gates, begin, end};
}

/* Panel j of gate k begins at packed + (k * panels + j) * H * PANEL. */
static void pack_forward(slice w)
{
    float *panel = w.packed;
    for (int64_t gate = 0; gate < w.gates; gate++)
        for (int64_t u = w.begin; u < w.end; u += PANEL, panel += w.H * PANEL)
            pack(panel, w.Wh + gate * w.H + u, w.gates * w.H, 1, w.H, min(PANEL, w.end - u));
}

/* y[n * row + u] += (h Wh)[n, u of the gate], for all n and the units of this thread */
static void add_product(slice w, int64_t gate, const float *h, float *y, int64_t row)
{
    const int64_t H = w.H;
    float sums[ROWS * PANEL];
    const float *panel = w.packed + gate * num_panels(w.end - w.begin) * H * PANEL;
    for (int64_t u = w.begin; u < w.end; u += PANEL, panel += H * PANEL)
        for (int64_t n = 0, rows; n < w.N; n += rows) {
            rows = next_rows(w.N - n);
            tile(rows, (left){h + n * H, H, 1, 0, H, 1}, panel, sums);
            for (int64_t i = 0; i < rows; i++) {
                float *to = y + (n + i) * row + u;
                for (int64_t c = 0; c < min(PANEL, w.end - u); c++) to[c] += sums[i * PANEL + c];
            }
        }
}

static void pack_backward(slice w)
{
    const int64_t K = w.gates * w.H;
    float *panel = w.packed;
    for (int64_t u = w.begin; u < w.end; u += PANEL, panel += K * PANEL)
        pack(panel, w.Wh + u * K, 1, K, K, min(PANEL, w.end - u));
}

/* dh += dA Wh', for all rows and the units of this thread; dA (N, gates * H), dh (N, H) */
static void add_transposed_product(slice w, const float *dA, float *dh)
{
    const int64_t K = w.gates * w.H;
    const float *panel = w.packed;
    float sums[ROWS * PANEL];
    for (int64_t u = w.begin; u < w.end; u += PANEL, panel += K * PANEL)
        for (int64_t n = 0, rows; n < w.N; n += rows) {
            rows = next_rows(w.N - n);
            tile(rows, (left){dA + n * K, K, 1, 0, K, 1}, panel, sums);
            for (int64_t i = 0; i < rows; i++) {
                float *to = dh + (n + i) * w.H + u;
                for (int64_t c = 0; c < min(PANEL, w.end - u); c++) to[c] += sums[i * PANEL + c];
            }
        }
}
