/* Helpers that rest between two calls: starting a thread takes longer than a small product.

   A helper waits for the next call for a tenth of a millisecond, the time that Python needs between
   two calls, and then sleeps. One call at a time has the helpers; one that comes meanwhile, from
   another thread of the program, works alone, as does everything after a failed start. */

#include "threads.h"
#include <pthread.h>

enum { MAX_THREADS = 64, SPINS = 8000 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t called = PTHREAD_COND_INITIALIZER;
static atomic_flag busy = ATOMIC_FLAG_INIT;
static int helpers, asleep;        /* `asleep` is guarded by the lock */
static team *volatile current;     /* of the call in progress */
static atomic_uint_fast64_t calls; /* MAX_THREADS * how many there were + members of the last */

static uint64_t next_call(uint64_t seen)
{
    for (int spins = 0; spins < SPINS; spins++) {
        uint64_t now = atomic_load_explicit(&calls, memory_order_acquire);
        if (now != seen) return now;
        relax();
    }
    pthread_mutex_lock(&lock);
    asleep++;
    while (atomic_load(&calls) == seen) pthread_cond_wait(&called, &lock);
    asleep--;
    pthread_mutex_unlock(&lock);
    return atomic_load(&calls);
}

/* Only a member touches the team: it is gone when all members have finished. */
static void *help(void *argument)
{
    const int index = (int)(intptr_t)argument;
    for (uint64_t seen = 0;;) {
        seen = next_call(seen);
        if (index >= (int)(seen % MAX_THREADS)) continue;
        team *t = current;
        t->work(t, index);
        atomic_fetch_add_explicit(&t->finished, 1, memory_order_release);
    }
    return NULL;
}

/* A child process has none of the threads. */
static void forget(void)
{
    pthread_mutex_init(&lock, NULL);
    pthread_cond_init(&called, NULL);
    atomic_flag_clear(&busy);
    atomic_store(&calls, 0);
    helpers = asleep = 0;
}

static void start(int wanted)
{
    static int watched;
    if (!watched) watched = pthread_atfork(NULL, NULL, forget) == 0;
    while (watched && helpers < wanted) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, help, (void *)(intptr_t)(helpers + 1)) != 0) break;
        pthread_detach(thread);
        helpers++;
    }
}

static void call_helpers(team *t)
{
    current = t;
    pthread_mutex_lock(&lock);
    uint64_t number = atomic_load(&calls) / MAX_THREADS + 1;
    atomic_store_explicit(&calls, number * MAX_THREADS + t->all.count, memory_order_release);
    if (asleep) pthread_cond_broadcast(&called);
    pthread_mutex_unlock(&lock);
}

void run(job work, const void *args, int64_t threads)
{
    team t = {.work = work, .args = args, .all = {.count = 1}};
    if (threads > MAX_THREADS - 1) threads = MAX_THREADS - 1;
    if (threads < 2 || atomic_flag_test_and_set(&busy)) {
        work(&t, 0);
        return;
    }
    start(threads - 1);
    t.all.count = threads < helpers + 1 ? threads : helpers + 1;
    call_helpers(&t);
    work(&t, 0);
    wait_until(&t.finished, t.all.count - 1);
    atomic_flag_clear(&busy);
}
