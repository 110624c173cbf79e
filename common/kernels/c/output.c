/* The output layer with softmax and loss (TimeOutputWithLoss in common/time_layers/output.py).

   The naive loops; `scale` turns S into softmax times the loss's gradient:

       for (r = 0; r < R; r++)
           for (v = 0; v < V; v++)
               sums[r] += S[r][v] = exp(dot(X[r], W[:, v]) + b[v]);

       for (r = 0; r < R; r++)
           for (v = 0; v < V; v++) {
               dW[:, v] += scale[r] * S[r][v] * X[r];
               db[v] += scale[r] * S[r][v];
               dX[r] += S[r][v] * W[:, v];
           }

   Here S is stored panel by panel, (panels, R, PANEL), so that a panel is still in cache when it is
   read again. The last panel is padded with columns near zero. The result does not depend on the
   number of threads: each sum is made by one thread, or from parts that are added in their order.
   */

#include "elementwise.h"
#include "threads.h"
#include "tile.h"

enum { CHUNK = 8 }; /* panels that a thread takes at a time */

typedef struct {
    const float *X, *W, *b;
    float *S, *scores, *work;
    double *sums;
    int64_t w_row, w_column, R, H, V;
} forward_args;

/* s = exp(s + bias); sum += s */
static void exponentiate(int64_t count, const float *restrict bias, float *restrict s,
                         float *restrict sum)
{
    for (int64_t j = 0; j < count; j++) {
        float e = fast_exp(s[j] + bias[j]);
        s[j] = e;
        sum[j] += e;
    }
}

/* scores (rows, columns) = s + bias; rows of `scores` lie V apart */
static void keep_scores(int64_t rows, int64_t columns, const float *bias, const float *s,
                        float *scores, int64_t V)
{
    for (int64_t i = 0; i < rows; i++)
        for (int64_t c = 0; c < columns; c++) scores[i * V + c] = s[i * PANEL + c] + bias[c];
}

static void output_forward_part(team *t, int index)
{
    const forward_args *o = t->args;
    const int64_t R = o->R, H = o->H, panels = num_panels(o->V);
    float *panel = o->work + index * (H + R) * PANEL;
    float *part = panel + H * PANEL; /* (R, PANEL): sums over the panels of a chunk */
    float passing[ROWS * PANEL];
    for (int64_t chunk; (chunk = take(t)) * CHUNK < panels;) {
        memset(part, 0, sizeof(float) * R * PANEL);
        for (int64_t p = chunk * CHUNK; p < min((chunk + 1) * CHUNK, panels); p++) {
            int64_t first = p * PANEL, columns = min(PANEL, o->V - first);
            pack(panel, PANEL, o->W + first * o->w_column, o->w_row, o->w_column, H, columns);
            float bias[ROWS * PANEL];
            for (int64_t c = 0; c < PANEL; c++)
                for (int64_t i = 0; i < ROWS; i++)
                    bias[i * PANEL + c] = c < columns ? o->b[first + c] : -1e30f;
            for (int64_t r = 0, rows; r < R; r += rows) {
                rows = next_rows(R - r);
                left x = {o->X + r * H, H, 1, 0, H, 1};
                float *s = o->S == NULL ? passing : o->S + (p * R + r) * PANEL;
                tile(rows, PANEL, x, panel, s);
                if (o->scores != NULL)
                    keep_scores(rows, columns, bias, s, o->scores + r * o->V + first, o->V);
                exponentiate(rows * PANEL, bias, s, part + r * PANEL);
            }
        }
        for (int64_t r = 0; r < R; r++) {
            double sum = 0;
            for (int64_t c = 0; c < PANEL; c++) sum += part[r * PANEL + c];
            o->sums[chunk * R + r] = sum;
        }
    }
}

/* Writes S = exp(X W + b) unless S is NULL, sums (chunks, R), the row sums of each chunk, and scores
   (R, V) = X W + b, row after row, unless it is NULL. Element (h, v) of W is at W[h * w_row + v *
   w_column]. work (threads, H + R, PANEL) is scratch. */
void output_forward(const float *X, const float *W, int64_t w_row, int64_t w_column, const float *b,
                    float *S, double *sums, float *scores, float *work, int64_t R, int64_t H,
                    int64_t V, int64_t threads)
{
    forward_args args = {X, W, b, S, scores, work, sums, w_row, w_column, R, H, V};
    run(output_forward_part, &args, threads);
}

typedef struct {
    const float *Xt, *W, *S;
    float *dW, *db, *dX, *work;
    int64_t w_row, w_column, R, H, V, parts;
} backward_args;

/* dW = Xt[:H] S and db = Xt[H] S for one panel of S */
static void output_dW(const backward_args *o, int64_t p)
{
    const int64_t R = o->R, H = o->H, first = p * PANEL, columns = min(PANEL, o->V - first);
    float sums[ROWS * PANEL];
    for (int64_t h = 0, rows; h < H + 1; h += rows) {
        rows = next_rows(H + 1 - h);
        tile(rows, PANEL, (left){o->Xt + h * R, R, 1, 0, R, 1}, o->S + p * R * PANEL, sums);
        for (int64_t i = 0; i < rows; i++) {
            int64_t step = h + i < H ? o->w_column : 1;
            float *to = h + i < H ? o->dW + (h + i) * o->w_row + first * step : o->db + first;
            for (int64_t c = 0; c < columns; c++) to[c * step] = sums[i * PANEL + c];
        }
    }
}

/* dX += S W' for `count` panels of S, from panel p on */
static void output_dX(const backward_args *o, int64_t p, int64_t count, float *transposed, float *dX)
{
    const int64_t R = o->R, H = o->H, wide = num_panels(H);
    const int64_t v = p * PANEL, K = count * PANEL, there = min(K, o->V - v);
    float sums[ROWS * PANEL];
    for (int64_t q = 0; q < wide; q++) { /* W' by panels of H */
        int64_t columns = min(PANEL, H - q * PANEL), width = panel_width(columns);
        float *panel = transposed + q * K * PANEL;
        memset(panel + there * width, 0, sizeof(float) * (K - there) * width);
        pack(panel, width, o->W + v * o->w_column + q * PANEL * o->w_row, o->w_column, o->w_row,
             there, columns);
    }
    for (int64_t r = 0, rows; r < R; r += rows) {
        rows = next_rows(R - r);
        left x = {o->S + (p * R + r) * PANEL, PANEL, 1, R * PANEL, PANEL, count};
        for (int64_t q = 0; q < wide; q++) {
            int64_t columns = min(PANEL, H - q * PANEL);
            tile(rows, panel_width(columns), x, transposed + q * K * PANEL, sums);
            for (int64_t i = 0; i < rows; i++) {
                float *to = dX + (r + i) * H + q * PANEL;
                for (int64_t c = 0; c < columns; c++) to[c] += sums[i * PANEL + c];
            }
        }
    }
}

/* The parts of dX are added in their order, so that rounding does not depend on which thread is
   first. */
static void output_backward_part(team *t, int index)
{
    const backward_args *o = t->args;
    const int64_t panels = num_panels(o->V), wide = num_panels(o->H), size = o->R * o->H;
    float *transposed = o->work + index * (wide * CHUNK * PANEL * PANEL + size);
    float *dX = transposed + wide * CHUNK * PANEL * PANEL;
    for (int64_t part; (part = take(t)) < o->parts;) {
        int64_t end = panels * (part + 1) / o->parts;
        memset(dX, 0, sizeof(float) * size);
        for (int64_t p = panels * part / o->parts; p < end; p += CHUNK) {
            int64_t count = min(CHUNK, end - p);
            for (int64_t k = 0; k < count; k++) output_dW(o, p + k);
            output_dX(o, p, count, transposed, dX); /* S is still in cache */
        }
        wait_until(&t->added, part);
        for (int64_t i = 0; i < size; i++) o->dX[i] += dX[i];
        atomic_store_explicit(&t->added, part + 1, memory_order_release);
    }
}

/* Writes dW = Xt[:H] S and db = Xt[H] S, and adds S W' to dX (R, H). Xt (H + 1, R) is (scale * X)'
   with a last row of `scale`. dW has the strides of W. The columns are cut into `parts`. work is
   scratch for each thread: W' of a chunk (panels of H, CHUNK * PANEL, PANEL) and its dX (R, H). */
void output_backward(const float *Xt, const float *W, int64_t w_row, int64_t w_column,
                     const float *S, float *dW, float *db, float *dX, float *work, int64_t R,
                     int64_t H, int64_t V, int64_t parts, int64_t threads)
{
    backward_args args = {Xt, W, S, dW, db, dX, work, w_row, w_column, R, H, V, parts};
    run(output_backward_part, &args, threads);
}

/* The caller needs it to allocate `sums` and `work`. */
int64_t output_chunk(void) { return CHUNK; }
