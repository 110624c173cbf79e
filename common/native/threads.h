/* A few threads for the length of one call, and a barrier for them to meet at. */

#pragma once
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>

#define MAX_THREADS 64

typedef struct {
    atomic_int arrived, round;
    int count;
} barrier;

/* Spins for some microseconds, then gives the core to whoever else wants it. */
static void wait_until(atomic_int *value, int wanted)
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
    atomic_int ready; /* set when `all.count` is final */
    atomic_int taken;
};

/* The next of 0, 1, ...: whoever is free takes it, so that a thread that is held up by another
   program holds up nobody else for long. */
static inline int take(team *t) { return atomic_fetch_add(&t->taken, 1); }

typedef struct {
    team *of;
    int index;
} member;

static void *run_member(void *argument)
{
    member *m = argument;
    wait_until(&m->of->ready, 1);
    m->of->work(m->of, m->index);
    return NULL;
}

/* work(team, index) on `threads` threads, or on as many as the system grants */
static void run(job work, const void *args, int64_t threads)
{
    team t = {.work = work, .args = args};
    pthread_t handles[MAX_THREADS];
    member members[MAX_THREADS];
    int count = 1;
    while (count < threads && count < MAX_THREADS) {
        members[count] = (member){&t, count};
        if (pthread_create(&handles[count], NULL, run_member, &members[count]) != 0) break;
        count++;
    }
    t.all.count = count;
    atomic_store_explicit(&t.ready, 1, memory_order_release);
    work(&t, 0);
    for (int k = 1; k < count; k++) pthread_join(handles[k], NULL);
}
