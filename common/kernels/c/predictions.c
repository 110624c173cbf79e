/* What a row of scores foretells, and where the class that came stands in it (describe in
   common/kernels/predictions.py).

   The naive loops for a row s of V scores, of which that of the class that came is t:

       most = max of all s[v];
       for (v = 0; v < V; v++) {
           total += exp(s[v] - most);
           spread += exp(s[v] - most) * (most - s[v]);
           above += s[v] > t;
       }
       best = the K classes of the largest scores, the largest first, of equal ones the first;

   Here as many sums go side by side as make vectors. A row is the work of one thread, so that the
   number of threads changes no bit. */

#include "elementwise.h"
#include "threads.h"
#include <math.h>

enum { ACROSS = 64, STRETCH = 32 * ACROSS }; /* sums side by side; scores that they add up */
enum { TOGETHER = 4 };                       /* rows that a thread takes at a time */

typedef struct {
    const float *S;
    const int64_t *ts;
    double *most, *total, *spread;
    int64_t *above, *best;
    int64_t R, V, K;
} describe_args;

/* Whether one of the scores is above `least`; the largest and the number above `came`, side by
   side. */
static inline __attribute__((always_inline)) int compare(const int64_t count, const float *s,
                                                         float came, float least, float *most,
                                                         int32_t *above)
{
    int some = 0;
    for (int64_t j = 0; j < count; j++) {
        most[j] = s[j] > most[j] ? s[j] : most[j];
        above[j] += s[j] > came;
        some |= s[j] > least;
    }
    return some;
}

/* Puts v into its place among the `count` best classes; of K the last falls out. Returns how many
   they are now. */
static int64_t insert(const float *s, int64_t v, int64_t *best, int64_t count, int64_t K)
{
    int64_t at = count < K ? count++ : K - 1;
    for (; at > 0 && s[v] > s[best[at - 1]]; at--) best[at] = best[at - 1];
    best[at] = v;
    return count;
}

/* Largest score, number above that of the class that came, best classes. */
static void order(const describe_args *o, int64_t r)
{
    const float *s = o->S + r * o->V, came = s[o->ts[r]];
    int64_t *best = o->best + r * o->K, count = 0;
    float least = o->K > 0 ? -INFINITY : INFINITY; /* what is above it is among the best */
    float most[ACROSS];
    int32_t above[ACROSS] = {0};
    for (int j = 0; j < ACROSS; j++) most[j] = s[0];
    for (int64_t k = 0; k < o->K; k++) best[k] = 0;
    for (int64_t v = 0; v < o->V; v += ACROSS) {
        const int64_t width = min(ACROSS, o->V - v);
        int some = width == ACROSS ? compare(ACROSS, s + v, came, least, most, above)
                                   : compare(width, s + v, came, least, most, above);
        for (int64_t i = v; some && i < v + width; i++)
            if (s[i] > least) {
                count = insert(s, i, best, count, o->K);
                if (count == o->K) least = s[best[o->K - 1]];
            }
    }
    o->above[r] = above[0];
    for (int j = 1; j < ACROSS; j++) {
        o->above[r] += above[j];
        most[0] = most[j] > most[0] ? most[j] : most[0];
    }
    o->most[r] = most[0];
}

static inline __attribute__((always_inline)) void weigh(const int64_t count, const float *s,
                                                        float most, float *sums, float *spreads)
{
    for (int64_t j = 0; j < count; j++) {
        float below = most - s[j], e = fast_exp(-below);
        sums[j] += e;
        spreads[j] += e * below;
    }
}

static double sum_of(float *sums)
{
    for (int half = ACROSS / 2; half > 0; half /= 2)
        for (int j = 0; j < half; j++) sums[j] += sums[j + half];
    return sums[0];
}

/* The two sums of the distribution. */
static void add_up(const describe_args *o, int64_t r)
{
    const float *s = o->S + r * o->V, most = o->most[r];
    double total = 0, spread = 0;
    for (int64_t v = 0; v < o->V; v += STRETCH) {
        const int64_t end = min(v + STRETCH, o->V);
        float sums[ACROSS] = {0}, spreads[ACROSS] = {0};
        int64_t i = v;
        for (; i + ACROSS <= end; i += ACROSS) weigh(ACROSS, s + i, most, sums, spreads);
        weigh(end - i, s + i, most, sums, spreads);
        total += sum_of(sums);
        spread += sum_of(spreads);
    }
    o->total[r] = total;
    o->spread[r] = spread;
}

static void describe_part(team *t, int index)
{
    (void)index;
    const describe_args *o = t->args;
    for (int64_t part; (part = take(t)) * TOGETHER < o->R;)
        for (int64_t r = part * TOGETHER; r < min((part + 1) * TOGETHER, o->R); r++) {
            order(o, r);
            add_up(o, r); /* the row is still in cache */
        }
}

/* S (R, V), ts (R,) in 0 .. V - 1. Writes most, total, spread and above (R,), and best (R, K) with
   K <= V. Scores that are not all finite leave a spread that is not. */
void describe(const float *S, const int64_t *ts, double *most, double *total, double *spread,
              int64_t *above, int64_t *best, int64_t R, int64_t V, int64_t K, int64_t threads)
{
    describe_args args = {S, ts, most, total, spread, above, best, R, V, K};
    run(describe_part, &args, threads);
}
