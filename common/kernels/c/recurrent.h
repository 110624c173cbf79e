/* What the time loops of the LSTM and the GRU share: their products with Wh (H, gates * H).

   Each thread has its own units of every gate, so that it packs its share of Wh once for a window,
   and the threads meet once a step, when every unit of h (or of dA) is there. A window of few rows
   does not pay for that; its products read Wh as it lies. */

#pragma once
#include "single_row.h"
#include "threads.h"
#include "tile.h"

typedef struct {
    const float *Wh;
    float *packed;       /* room for all of Wh by panels; NULL for a forward pass of few rows */
    int64_t N, H, gates; /* sequences, units, gates */
    int64_t begin, end;  /* the units of this thread */
} slice;

/* The share of a thread, in half panels. */
static slice share(const float *Wh, float *packed, int64_t N, int64_t H, int64_t gates, team *t,
                   int index)
{
    int64_t halves = (H + LANES - 1) / LANES;
    int64_t begin = min(H, halves * index / t->all.count * LANES);
    int64_t end = min(H, halves * (index + 1) / t->all.count * LANES);
    return (slice){Wh, packed == NULL ? NULL : packed + begin * gates * H, N, H, gates, begin, end};
}

/* y = b + x Wx for a few rows, the units of this thread in every gate; x (rows, D), y (rows, gates * H) */
static void project(slice w, const float *x, const float *Wx, const float *b, int64_t rows, int64_t D,
                    float *y)
{
    const int64_t width = w.gates * w.H;
    for (int64_t gate = 0; gate < w.gates; gate++)
        for (int64_t n = 0; n < rows; n++) {
            const int64_t at = gate * w.H + w.begin, count = w.end - w.begin;
            memcpy(y + n * width + at, b + at, sizeof(float) * count);
            add_row_product(x + n * D, Wx + at, width, D, count, y + n * width + at);
        }
}

/* The panels of one gate after those of the other, each H rows deep. */
static void pack_forward(slice w)
{
    float *panel = w.packed;
    for (int64_t gate = 0; gate < w.gates; gate++)
        for (int64_t u = w.begin, width; u < w.end; u += PANEL, panel += w.H * width) {
            width = panel_width(w.end - u);
            pack(panel, width, w.Wh + gate * w.H + u, w.gates * w.H, 1, w.H, min(PANEL, w.end - u));
        }
}

/* y[n * row + u] += (A B)[n, u], for all n and the units of this thread; A (N, K), and B by panels */
static void add_panels(slice w, const float *A, int64_t K, const float *panel, float *y,
                       int64_t row)
{
    float sums[ROWS * PANEL];
    for (int64_t u = w.begin, width; u < w.end; u += PANEL, panel += K * width) {
        width = panel_width(w.end - u);
        for (int64_t n = 0, rows; n < w.N; n += rows) {
            rows = next_rows(w.N - n);
            tile(rows, width, (left){A + n * K, K, 1, 0, K, 1}, panel, sums);
            for (int64_t i = 0; i < rows; i++) {
                float *to = y + (n + i) * row + u;
                for (int64_t c = 0; c < min(PANEL, w.end - u); c++) to[c] += sums[i * PANEL + c];
            }
        }
    }
}

/* y[n * row + u] += (h Wh)[n, u of the gate]; h (N, H) */
static void add_product(slice w, int64_t gate, const float *h, float *y, int64_t row)
{
    if (w.packed == NULL) {
        for (int64_t n = 0; n < w.N; n++)
            add_row_product(h + n * w.H, w.Wh + gate * w.H + w.begin, w.gates * w.H, w.H,
                            w.end - w.begin, y + n * row + w.begin);
        return;
    }
    const int64_t width = (w.end - w.begin + LANES - 1) / LANES * LANES;
    add_panels(w, h, w.H, w.packed + gate * width * w.H, y, row);
}

static void pack_backward(slice w)
{
    const int64_t K = w.gates * w.H;
    float *panel = w.packed;
    for (int64_t u = w.begin, width; u < w.end; u += PANEL, panel += K * width) {
        width = panel_width(w.end - u);
        pack(panel, width, w.Wh + u * K, 1, K, K, min(PANEL, w.end - u));
    }
}

/* dh += dA Wh'; dA (N, gates * H), dh (N, H) */
static void add_transposed_product(slice w, const float *dA, float *dh)
{
    add_panels(w, dA, w.gates * w.H, w.packed, dh, w.H);
}
