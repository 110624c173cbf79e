/* The helper threads. They are kept between calls: starting a thread takes longer than a small
   product.

   The naive form of run:

       for (index = 1; index < threads; index++) pthread_create(..., work(team, index));
       work(team, 0);
       for (index = 1; index < threads; index++) pthread_join(...);

   Between two calls a helper spins for about as long as Python needs to make the next one, then
   sleeps until it is signalled. Only one call at a time can have the helpers; a call that another
   thread of the program makes meanwhile runs on its caller alone. If the system refuses a new
   thread, the call runs on the threads that exist. */

#define _GNU_SOURCE /* for a thread's cores */
#include "threads.h"
#include <pthread.h>

enum { MAX_THREADS = 64, SPINS = 8000 };

typedef struct {
    pthread_cond_t called;
    int asleep;
} helper; /* guarded by the lock */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static atomic_flag busy = ATOMIC_FLAG_INIT;
static helper all[MAX_THREADS];    /* index 0 is the caller, not a helper */
static int helpers;                /* how many were started */
static team *volatile current;     /* of the call in progress */
static atomic_uint_fast64_t calls; /* MAX_THREADS * number of calls + size of the last team */

static inline int is_member(int index, uint64_t call) { return index < (int)(call % MAX_THREADS); }

/* Waits for a call after `seen` whose team this helper belongs to. */
static uint64_t next_call(uint64_t seen, int index)
{
    uint64_t now = seen;
    for (int spins = 0; now == seen && is_member(index, seen) && spins < SPINS; spins++) {
        relax();
        now = atomic_load_explicit(&calls, memory_order_acquire);
    }
    if (now != seen && is_member(index, now)) return now;
    pthread_mutex_lock(&lock);
    all[index].asleep = 1;
    while ((now = atomic_load(&calls)) == seen || !is_member(index, now))
        pthread_cond_wait(&all[index].called, &lock);
    all[index].asleep = 0;
    pthread_mutex_unlock(&lock);
    return now;
}

#ifdef __linux__
static int current_core(void) { return sched_getcpu(); }

/* The system may wake a helper on the caller's core and need milliseconds to notice that another
   core is idle. So the helper moves itself away. */
static void leave_core(int core)
{
    cpu_set_t allowed, others;
    if (core < 0 || current_core() != core) return;
    if (pthread_getaffinity_np(pthread_self(), sizeof allowed, &allowed) != 0) return;
    others = allowed;
    CPU_CLR(core, &others);
    if (CPU_COUNT(&others) == 0) return;
    pthread_setaffinity_np(pthread_self(), sizeof others, &others); /* moves it */
    pthread_setaffinity_np(pthread_self(), sizeof allowed, &allowed);
}
#else
static int current_core(void) { return -1; }
static void leave_core(int core) { (void)core; }
#endif

/* The team lives on the caller's stack until all members have finished; nobody else may touch it.
   */
static void *help(void *argument)
{
    const int index = (int)(intptr_t)argument;
    for (uint64_t seen = 0;;) {
        seen = next_call(seen, index);
        team *t = current;
        leave_core(t->core);
        t->work(t, index);
        atomic_fetch_add_explicit(&t->finished, 1, memory_order_release);
    }
    return NULL;
}

/* After a fork the child has none of the threads. */
static void forget(void)
{
    pthread_mutex_init(&lock, NULL);
    atomic_flag_clear(&busy);
    atomic_store(&calls, 0);
    helpers = 0;
}

static void start(int wanted)
{
    static int watched;
    if (!watched) watched = pthread_atfork(NULL, NULL, forget) == 0;
    while (watched && helpers < wanted) {
        const int index = helpers + 1;
        pthread_t thread;
        all[index].asleep = 0;
        pthread_cond_init(&all[index].called, NULL);
        if (pthread_create(&thread, NULL, help, (void *)(intptr_t)index) != 0) break;
        pthread_detach(thread);
        helpers = index;
    }
}

static void call_helpers(team *t)
{
    current = t;
    pthread_mutex_lock(&lock);
    uint64_t number = atomic_load(&calls) / MAX_THREADS + 1;
    atomic_store_explicit(&calls, number * MAX_THREADS + t->all.count, memory_order_release);
    for (int index = 1; index < t->all.count; index++)
        if (all[index].asleep) pthread_cond_signal(&all[index].called);
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
    t.core = current_core();
    call_helpers(&t);
    work(&t, 0);
    wait_until(&t.finished, t.all.count - 1);
    atomic_flag_clear(&busy);
}
