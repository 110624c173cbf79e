/* A team of threads for each call, and a barrier for its members to meet at. */

#pragma once
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>

typedef struct {
    atomic_int arrived, round;
    int count;
} barrier;

/* Tells the processor that this thread only waits. */
static inline void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Spins for some microseconds, then gives the core to whoever else wants it. */
static inline void wait_until(atomic_int *value, int wanted)
{
    for (int spins = 0; atomic_load_explicit(value, memory_order_acquire) != wanted;) {
        if (spins < 4000)
            spins++;
        else
            sched_yield();
    }
}

static inline void meet(barrier *b)
{
    if (b->count == 1) return;
    int next = atomic_load_explicit(&b->round, memory_order_relaxed) + 1;
    if (atomic_fetch_add(&b->arrived, 1) == b->count - 1) {
        atomic_store_explicit(&b->arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&b->round, next, memory_order_release);
    } else {
        wait_until(&b->round, next);
    }
}

typedef struct team team;
typedef void (*job)(team *, int index);

struct team {
    job work;
    const void *args;
    barrier all;
    int core; /* of the caller; below 0: not known */
    atomic_int taken;
    atomic_int added; /* results, by those who add them up in order */
    atomic_int finished; /* members but the first */
};

/* The next of 0, 1, ...: whoever is free takes it, so that a thread that is held up by another
   program holds up nobody else for long. */
static inline int take(team *t) { return atomic_fetch_add(&t->taken, 1); }

/* work(team, index) on `threads` threads, or on as many as can be had */
__attribute__((visibility("hidden"))) void run(job work, const void *args, int64_t threads);
