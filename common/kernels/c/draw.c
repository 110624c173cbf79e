/* One id drawn from a row of scores (sample_id in models/language_model.py).

   The naive loop, which keeps all weights:

       for (i = 0; i < V; i++) total += w[i] = exp((s[i] - max(s)) * by);
       at = share * total;
       for (i = 0; i < V - 1 && at >= w[i]; i++) at -= w[i];
       return i;

   Here the weights of a block of ids are added up and forgotten. The sums of the blocks say in
   which block the id lies, and the weights of that block are computed a second time. */

#include "elementwise.h"
#include "threads.h"
#include <math.h>

enum { BLOCK = 128, ACROSS = 64 }; /* ids in a block; partial sums side by side, for vector code */

/* The largest score; a NaN is skipped. */
static float largest(const float *s, int64_t length)
{
    float most[ACROSS];
    for (int j = 0; j < ACROSS; j++) most[j] = s[0];
    int64_t i = 0;
    for (; i + ACROSS <= length; i += ACROSS)
        for (int j = 0; j < ACROSS; j++) most[j] = s[i + j] > most[j] ? s[i + j] : most[j];
    for (; i < length; i++) most[0] = s[i] > most[0] ? s[i] : most[0];
    for (int j = 1; j < ACROSS; j++) most[0] = most[j] > most[0] ? most[j] : most[0];
    return most[0];
}

/* w = exp((s - most) * by) for one block, padded with zeros. A score 87 or more below the largest
   gets weight 0: `share` is too coarse to hit it. */
static void weigh(const float *s, int64_t count, float most, float by, float *w)
{
    float x[BLOCK];
    for (int64_t i = 0; i < count; i++) x[i] = s[i];
    for (int64_t i = count; i < BLOCK; i++) x[i] = -INFINITY;
    for (int i = 0; i < BLOCK; i++) {
        float below = (x[i] - most) * by;
        float e = fast_exp(below);
        w[i] = below < -87.0f ? 0.0f : e;
    }
}

static double sum_of(const float *w)
{
    float sums[ACROSS];
    for (int j = 0; j < ACROSS; j++) sums[j] = w[j] + w[j + ACROSS];
    for (int half = ACROSS / 2; half > 0; half /= 2)
        for (int j = 0; j < half; j++) sums[j] += sums[j + half];
    return sums[0];
}

/* The id at which the running sum of softmax(scores * by) passes `share`, which is between 0 and 1.
   Returns -1 if the scores make no distribution: NaN, or nothing above -inf. sums (blocks,). */
int64_t draw(const float *scores, int64_t length, float by, double share, double *sums)
{
    if (length < 1) return -1;
    const float most = largest(scores, length);
    const int64_t blocks = (length + BLOCK - 1) / BLOCK;
    float w[BLOCK];
    double total = 0;
    for (int64_t b = 0; b < blocks; b++) {
        weigh(scores + b * BLOCK, min(BLOCK, length - b * BLOCK), most, by, w);
        total += sums[b] = sum_of(w);
    }
    if (!(total > 0)) return -1;
    double at = share * total;
    int64_t block = 0, last = 0; /* last with weight above 0, if rounding leads past the end */
    for (; block < blocks && at >= sums[block]; block++) {
        at -= sums[block];
        if (sums[block] > 0) last = block;
    }
    if (block == blocks) {
        block = last;
        at = total;
    }
    weigh(scores + block * BLOCK, min(BLOCK, length - block * BLOCK), most, by, w);
    for (int i = last = 0; i < BLOCK; i++) {
        if (w[i] > 0) last = i;
        if (at < w[i]) break;
        at -= w[i];
    }
    return block * BLOCK + last;
}

/* The caller needs it to allocate `sums`. */
int64_t draw_block(void) { return BLOCK; }
