/* Passes over whole arrays (common/kernels/passes.py).

   The naive loops stand above the functions, for i = 0 .. length - 1. Here threads take blocks. */

#include "threads.h"
#include <stddef.h>

enum { BLOCK = 1 << 14 }; /* elements that one thread takes at a time: 64 KiB */

typedef struct {
    float *x;
    const float *y, *target, *rate, *pull;
    float a;
    double *sums;
    int64_t length;
} args;

static void add_scaled_part(team *t, int index)
{
    const args *o = t->args;
    for (int64_t begin; (begin = (int64_t)take(t) * BLOCK) < o->length;) {
        float *restrict x = o->x + begin;
        const float *restrict y = o->y + begin;
        for (int64_t i = 0; i < min(BLOCK, o->length - begin); i++) x[i] += o->a * y[i];
    }
}

/* x[i] += a * y[i] */
void add_scaled(float *x, float a, const float *y, int64_t length, int64_t threads)
{
    run(add_scaled_part, &(args){.x = x, .y = y, .a = a, .length = length}, threads);
}

static void scale_part(team *t, int index)
{
    const args *o = t->args;
    for (int64_t begin; (begin = (int64_t)take(t) * BLOCK) < o->length;)
        for (int64_t i = begin; i < min(begin + BLOCK, o->length); i++) o->x[i] *= o->a;
}

/* x[i] *= a */
void scale(float *x, float a, int64_t length, int64_t threads)
{
    run(scale_part, &(args){.x = x, .a = a, .length = length}, threads);
}

static void descend_part(team *t, int index)
{
    const args *o = t->args;
    for (int64_t begin; (begin = (int64_t)take(t) * BLOCK) < o->length;) {
        float *restrict x = o->x + begin;
        const float *restrict y = o->y + begin, *restrict target = o->target + begin;
        const float *restrict rate = o->rate + begin, *restrict pull = o->pull + begin;
        for (int64_t i = 0; i < min(BLOCK, o->length - begin); i++)
            x[i] -= rate[i] * y[i] - pull[i] * (target[i] - x[i]);
    }
}

/* x[i] -= rate[i] * y[i] - pull[i] * (target[i] - x[i]) */
void descend(float *x, const float *y, const float *target, const float *rate, const float *pull,
             int64_t length, int64_t threads)
{
    args a = {.x = x, .y = y, .target = target, .rate = rate, .pull = pull, .length = length};
    run(descend_part, &a, threads);
}

enum { SUMS = 64 }; /* partial sums of a block, side by side, for vector code */

static void squares_part(team *t, int index)
{
    const args *o = t->args;
    for (int64_t block; (block = take(t)) * BLOCK < o->length;) {
        const float *y = o->y + block * BLOCK;
        const int64_t count = min(BLOCK, o->length - block * BLOCK);
        float part[SUMS] = {0};
        double sum = 0;
        int64_t i = 0;
        for (; i + SUMS <= count; i += SUMS)
            for (int64_t j = 0; j < SUMS; j++) part[j] += y[i + j] * y[i + j];
        for (; i < count; i++) sum += y[i] * y[i];
        for (int64_t j = 0; j < SUMS; j++) sum += part[j];
        o->sums[block] = sum;
    }
}

/* sums[i / BLOCK] += y[i] * y[i]; the caller adds the sums up, in float64 and in their order. */
void squares(const float *y, double *sums, int64_t length, int64_t threads)
{
    run(squares_part, &(args){.y = y, .sums = sums, .length = length}, threads);
}

int64_t vector_block(void) { return BLOCK; }
