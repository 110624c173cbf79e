/* What the time loops of the LSTM and the GRU share: their products with Wh (H, gates * H).

   The naive loops, for sequence n and unit u of one gate:

       for (k = 0; k < H; k++) y[n][u] += h[n][k] * Wh[k][gate * H + u];  // add_product
       for (k = 0; k < gates * H; k++) dh[n][u] += dA[n][k] * Wh[u][k];   // add_transposed_product

   Each thread owns some units, the same ones in every gate. It packs its share of Wh once a window.
   The team meets once a step, when all units of h (or of dA) are written. A forward window of few
   rows does not pay for the packing; its products read Wh in place. */

#pragma once
#include "single_row.h"
#include "threads.h"
#include "tile.h"

typedef struct {
    const float *Wh;
    float *packed;       /* this thread's panels of Wh; NULL in a forward window of few rows */
    int64_t N, H, gates; /* sequences, units, gates */
    int64_t begin, end;  /* the units of this thread */
} slice;

/* The units of a thread, in multiples of half a panel. */
static slice share(const float *Wh, float *packed, int64_t N, int64_t H, int64_t gates, team *t,
                   int index)
{
    int64_t halves = (H + LANES - 1) / LANES;
    int64_t begin = min(H, halves * index / t->all.count * LANES);
    int64_t end = min(H, halves * (index + 1) / t->all.count * LANES);
    return (slice){Wh, packed == NULL ? NULL : packed + begin * gates * H, N, H, gates, begin, end};
}

/* y = b + x Wx for a few rows, only the units of this thread; x (rows, D), y (rows, gates * H) */
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

/* Packs Wh for add_product: the panels of one gate after those of another, each H rows deep. */
static void pack_forward(slice w)
{
    float *panel = w.packed;
    for (int64_t gate = 0; gate < w.gates; gate++)
        for (int64_t u = w.begin, width; u < w.end; u += PANEL, panel += w.H * width) {
            width = panel_width(w.end - u);
            pack(panel, width, w.Wh + gate * w.H + u, w.gates * w.H, 1, w.H, min(PANEL, w.end - u));
        }
}

/* y[n * row + u] += (A B)[n, u] for all n and the units of this thread; A (N, K), B packed */
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

/* Packs the transpose of Wh for add_transposed_product. */
static void pack_backward(slice w)
{
    const int64_t K = w.gates * w.H;
    float *panel = w.packed;
    for (int64_t u = w.begin, width; u < w.end; u += PANEL, panel += K * width) {
        width = panel_width(w.end - u);
        pack(panel, width, w.Wh + u * K, 1, K, K, min(PANEL, w.end - u));
    }
}

/* dh += dA Wh'; dA (N, gates * H), dh (N, H). */
static void add_transposed_product(slice w, const float *dA, float *dh)
{
    add_panels(w, dA, w.gates * w.H, w.packed, dh, w.H);
}
