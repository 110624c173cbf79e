/* The team of threads that works on a call, and the barrier at which its members meet. */

#pragma once
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>

static inline int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }

typedef struct {
    atomic_int arrived, round;
    int count;
} barrier;

/* Tells the processor that this is a waiting loop. */
static inline void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Spins for some microseconds, then offers the core to other threads between looks. */
static inline void wait_until(atomic_int *value, int wanted)
{
    for (int spins = 0; atomic_load_explicit(value, memory_order_acquire) != wanted;) {
        if (spins < 4000)
            spins++;
        else
            sched_yield();
    }
}

/* Returns when all members have called it. */
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
    int core; /* of the caller; negative if unknown */
    atomic_int taken;
    atomic_int added; /* parts of a sum that were added so far, in their order */
    atomic_int finished; /* members, without the caller */
};

/* The next of 0, 1, ...: the number of a piece of work. Whoever is free takes the next piece, so
   that a thread whose core is busy with another program delays the others by one piece at most. */
static inline int take(team *t) { return atomic_fetch_add(&t->taken, 1); }

/* Calls work(team, index) on `threads` threads, or on as many as there are; index 0 is the caller.
   */
__attribute__((visibility("hidden"))) void run(job work, const void *args, int64_t threads);
