/* The output layer with softmax and loss (common/time_layers/output.py).

   S = exp(X W + b) is kept by panels: (panels, R, PANEL); columns that are not there are near zero.
   Nothing here depends on the number of threads: each sum is made in one piece by one of them. */

#include "elementwise.h"
#include "threads.h"
#include "tile.h"

enum { CHUNK = 8 }; /* panels that a thread takes at once */

typedef struct {
    const float *X, *W, *b;
    float *S, *work;
    double *sums;
    int64_t w_row, w_column, R, H, V;
} forward_args;

static void output_forward_part(team *t, int index)
{
    const forward_args *o = t->args;
    const int64_t R = o->R, H = o->H, panels = num_panels(o->V);
    float *panel = o->work + index * (H + R) * PANEL;
    float *part = panel + H * PANEL; /* sums over the panels of a chunk, lane by lane */
    for (int64_t chunk; (chunk = take(t)) * CHUNK < panels;) {
        memset(part, 0, sizeof(float) * R * PANEL);
        for (int64_t p = chunk * CHUNK; p < min((chunk + 1) * CHUNK, panels); p++) {
            int64_t first = p * PANEL, columns = min(PANEL, o->V - first);
            pack(panel, o->W + first * o->w_column, o->w_row, o->w_column, H, columns);
            float bias[PANEL];
            for (int64_t c = 0; c < PANEL; c++) bias[c] = c < columns ? o->b[first + c] : -1e30f;
            for (int64_t r = 0, rows; r < R; r += rows) {
                rows = next_rows(R - r);
                left x = {o->X + r * H, H, 1, 0, H, 1};
                float *s = o->S + (p * R + r) * PANEL, *sum = part + r * PANEL;
                tile(rows, x, panel, s);
                for (int64_t i = 0; i < rows; i++)
                    for (int64_t c = 0; c < PANEL; c++) {
                        float e = fast_exp(s[i * PANEL + c] + bias[c]);
                        s[i * PANEL + c] = e;
                        sum[i * PANEL + c] += e;
                    }
            }
        }
        for (int64_t r = 0; r < R; r++) {
            double sum = 0;
            for (int64_t c = 0; c < PANEL; c++) sum += part[r * PANEL + c];
            o->sums[chunk * R + r] = sum;
        }
    }
}

/* S = exp(X W + b); sums (chunks, R) of the columns of each chunk.
   Element (h, v) of W is at W[h * w_row + v * w_column]; work (threads, H + R, PANEL). */
void output_forward(const float *X, const float *W, int64_t w_row, int64_t w_column, const float *b,
                    float *S, double *sums, float *work, int64_t R, int64_t H, int64_t V,
                    int64_t threads)
{
    forward_args args = {X, W, b, S, work, sums, w_row, w_column, R, H, V};
    run(output_forward_part, &args, threads);
}

typedef struct {
    const float *Xt, *W, *S;
    float *dW, *db, *dX, *work;
    int64_t w_row, w_column, R, H, V;
} backward_args;

enum { GROUP = 256 / PANEL }; /* panels whose share of dX is added at once */

/* dW = Xt[:H] S, db = Xt[H] S, by chunks of columns */
static void output_dW(team *t, const backward_args *o)
{
    const int64_t R = o->R, H = o->H, panels = num_panels(o->V);
    float sums[ROWS * PANEL];
    for (int64_t chunk; (chunk = take(t)) * CHUNK < panels;)
        for (int64_t p = chunk * CHUNK; p < min((chunk + 1) * CHUNK, panels); p++) {
            int64_t first = p * PANEL, columns = min(PANEL, o->V - first);
            for (int64_t h = 0, rows; h < H + 1; h += rows) {
                rows = next_rows(H + 1 - h);
                left x = {o->Xt + h * R, R, 1, 0, R, 1};
                tile(rows, x, o->S + p * R * PANEL, sums);
                for (int64_t i = 0; i < rows; i++) {
                    int64_t step = h + i < H ? o->w_column : 1;
                    float *to = h + i < H ? o->dW + (h + i) * o->w_row + first * step
                                          : o->db + first;
                    for (int64_t c = 0; c < columns; c++) to[c * step] = sums[i * PANEL + c];
                }
            }
        }
}

/* dX += S W', group by group: the threads pack the group's W' together, then each has its rows */
static void output_dX(team *t, int index, const backward_args *o)
{
    const int64_t R = o->R, H = o->H, V = o->V, panels = num_panels(V), wide = num_panels(H);
    const int64_t tiles = (R + ROWS - 1) / ROWS, count = t->all.count;
    float sums[ROWS * PANEL];
    for (int64_t group = 0; group < panels; group += GROUP) {
        int64_t blocks = min(GROUP, panels - group), K = blocks * PANEL, v = group * PANEL;
        int64_t there = min(K, V - v);
        float *turned = o->work + group / GROUP % 2 * wide * GROUP * PANEL * PANEL;
        for (int64_t q = index; q < wide; q += count) {
            float *panel = turned + q * K * PANEL;
            memset(panel + there * PANEL, 0, sizeof(float) * (K - there) * PANEL);
            pack(panel, o->W + v * o->w_column + q * PANEL * o->w_row, o->w_column, o->w_row, there,
                 min(PANEL, H - q * PANEL));
        }
        meet(&t->all);
        for (int64_t k = tiles * index / count; k < tiles * (index + 1) / count; k++) {
            int64_t r = R * k / tiles, rows = R * (k + 1) / tiles - r;
            left x = {o->S + (group * R + r) * PANEL, PANEL, 1, R * PANEL, PANEL, blocks};
            for (int64_t q = 0; q < wide; q++) {
                tile(rows, x, turned + q * K * PANEL, sums);
                int64_t columns = min(PANEL, H - q * PANEL);
                for (int64_t i = 0; i < rows; i++) {
                    float *to = o->dX + (r + i) * H + q * PANEL;
                    for (int64_t c = 0; c < columns; c++) to[c] += sums[i * PANEL + c];
                }
            }
        }
    }
}

static void output_backward_part(team *t, int index)
{
    output_dX(t, index, t->args);
    output_dW(t, t->args);
}

/* dW = Xt[:H] S, db = Xt[H] S, and dX (R, H), zeros before, += S W'.
   Xt (H + 1, R); dW lies in memory as W does; work (2, panels of H, 256, PANEL). */
void output_backward(const float *Xt, const float *W, int64_t w_row, int64_t w_column,
                     const float *S, float *dW, float *db, float *dX, float *work, int64_t R,
                     int64_t H, int64_t V, int64_t threads)
{
    backward_args args = {Xt, W, S, dW, db, dX, work, w_row, w_column, R, H, V};
    run(output_backward_part, &args, threads);
}

/* How many columns a panel has. */
int64_t panel_columns(void) { return PANEL; }
