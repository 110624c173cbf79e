/* Lets g++ compile CUDA C, unchanged, into code that runs on the CPU.

   A block runs in one thread of the system, and the threads of a block are fibers: each runs until it
   waits for the others, then the next one does. The blocks of a cooperative launch run side by side,
   those of any other one after the other.

   What is wrong in a kernel shows: shared memory begins as NaN and must not be written behind its
   end; the threads of a block must meet at one __syncthreads, all of them; where all wait for each
   other, the launch fails. A barrier that is left out shows where a thread reads what one after it
   writes: run a kernel in both orders, ascending and descending.

   It has what the kernels of this project use: dynamic shared memory, no static one; no shuffles. It
   cannot know time, nor what the caches of a device keep from one block to another: what other blocks
   write is seen at once. */

#pragma once
#include <atomic>
#include <math.h>
#include <mutex>
#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <string>
#include <sys/mman.h>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>
#ifndef __x86_64__
#include <ucontext.h>
#endif

#define __CUDACC__
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ __thread /* a block is a thread of the system */

struct dim3 {
    unsigned x, y, z;
};
struct alignas(16) float4 {
    float x, y, z, w;
};

namespace cuda_on_cpu {

enum { STACK = 1 << 16, MOST_SHARED = 232448, FENCE = 1 << 16 };
enum class State { NEW, READY, WAITING, DONE };
constexpr unsigned char UNWRITTEN = 0xff, BEHIND = 0xfe; /* a NaN each four; a large number */

/* --- fibers */

#ifdef __x86_64__
using Context = void *; /* the stack pointer; the registers lie above it */
extern "C" void cuda_on_cpu_switch(Context *from, Context to);
asm(R"(
.text
.globl cuda_on_cpu_switch
cuda_on_cpu_switch:
    push %rbp; push %rbx; push %r12; push %r13; push %r14; push %r15
    mov %rsp, (%rdi)
    mov %rsi, %rsp
    pop %r15; pop %r14; pop %r13; pop %r12; pop %rbx; pop %rbp
    ret
)");
inline void change(Context &from, Context &to) { cuda_on_cpu_switch(&from, to); }
inline void prepare(Context &context, char *stack, void (*begin)())
{
    void **top = (void **)(stack + STACK) - 2; /* a call leaves the stack 8 above a multiple of 16 */
    top[0] = (void *)begin;
    top[1] = nullptr;
    context = top - 6;
}
#else
using Context = ucontext_t;
inline void change(Context &from, Context &to) { swapcontext(&from, &to); }
inline void prepare(Context &context, char *stack, void (*begin)())
{
    getcontext(&context);
    context.uc_stack.ss_sp = stack;
    context.uc_stack.ss_size = STACK;
    makecontext(&context, begin, 0);
}
#endif

inline std::vector<char *> free_stacks;
inline std::mutex stacks;

inline char *take_stack()
{
    std::lock_guard<std::mutex> lock(stacks);
    if (!free_stacks.empty()) {
        char *stack = free_stacks.back();
        free_stacks.pop_back();
        return stack;
    }
    return (char *)mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

/* --- a launch, its blocks, their threads */

struct Launch {
    void (*call)(void **);
    void **args;
    dim3 grid, block;
    size_t shared;
    bool cooperative, descending;
    unsigned long blocks;
    std::atomic<unsigned long> unfinished, changes{0}; /* atomic operations, and blocks that ended */
    std::vector<std::atomic<unsigned long>> stuck;     /* of each block: after so many changes */
    std::atomic<bool> failed{false};
    std::mutex mutex;
    std::string message;

    explicit Launch(unsigned long count) : blocks(count), unfinished(count), stuck(count) {}
    void fail(const std::string &why)
    {
        std::lock_guard<std::mutex> lock(mutex);
        if (!failed.exchange(true)) message = why;
    }
};

struct Thread {
    dim3 index;
    State state = State::NEW;
    int line = 0; /* of the barrier where it waits */
    char *stack = nullptr;
    Context context;
};

struct Block {
    Launch &launch;
    unsigned long number;
    dim3 index;
    std::vector<Thread> threads;
    Context scheduler;
    Thread *running = nullptr;

    Block(Launch &l, unsigned long n);
    void run();
    void resume(Thread &thread);
    void release();
    void wait(int line);
    [[noreturn]] void fail(const std::string &why);
};

inline __thread Block *here = nullptr;

inline Block::Block(Launch &l, unsigned long n)
    : launch(l), number(n), threads((size_t)l.block.x * l.block.y * l.block.z)
{
    index = {(unsigned)(n % l.grid.x), (unsigned)(n / l.grid.x % l.grid.y),
             (unsigned)(n / l.grid.x / l.grid.y)};
    for (size_t i = 0; i < threads.size(); i++)
        threads[i].index = {(unsigned)(i % l.block.x), (unsigned)(i / l.block.x % l.block.y),
                            (unsigned)(i / l.block.x / l.block.y)};
}

inline void begin_thread()
{
    here->launch.call(here->launch.args);
    here->running->state = State::DONE;
    change(here->running->context, here->scheduler);
}

inline void Block::resume(Thread &thread)
{
    running = &thread;
    if (thread.state == State::NEW) {
        thread.stack = take_stack();
        prepare(thread.context, thread.stack, begin_thread);
    }
    thread.state = State::READY;
    change(scheduler, thread.context);
    if (thread.state == State::DONE || launch.failed) {
        std::lock_guard<std::mutex> lock(stacks);
        free_stacks.push_back(std::exchange(thread.stack, nullptr));
    }
}

/* Lets the threads go if all wait, at one line. */
inline void Block::release()
{
    size_t waiting = 0;
    while (threads[waiting].state == State::DONE) waiting++;
    const int line = threads[waiting].line;
    for (Thread &thread : threads)
        if (thread.state == State::DONE || thread.line != line)
            launch.fail("thread " + std::to_string(waiting) + " of block " + std::to_string(number) +
                        " waits in line " + std::to_string(line) + ", where not all come");
    for (Thread &thread : threads) thread.state = State::READY;
}

inline void Block::run()
{
    const size_t count = threads.size();
    while (!launch.failed) {
        size_t done = 0;
        for (size_t k = 0; k < count && !launch.failed; k++) {
            Thread &thread = threads[launch.descending ? count - 1 - k : k];
            if (thread.state == State::NEW || thread.state == State::READY) resume(thread);
            done += thread.state == State::DONE;
        }
        if (done == count || launch.failed) break;
        release();
    }
    std::lock_guard<std::mutex> lock(stacks);
    for (Thread &thread : threads)
        if (thread.stack != nullptr) free_stacks.push_back(thread.stack);
}

inline void Block::wait(int line)
{
    running->state = State::WAITING;
    running->line = line;
    change(running->context, scheduler);
}

inline void Block::fail(const std::string &why)
{
    launch.fail(why);
    change(running->context, scheduler); /* which does not come back */
    __builtin_unreachable();
}

/* In a loop that waits for another block. All that are left are stuck if each has looked many times
   since the last change. */
inline void relax(unsigned long &looks, unsigned long &seen)
{
    Launch &launch = here->launch;
    sched_yield();
    unsigned long now = launch.changes;
    if (now != seen) looks = 0;
    seen = now;
    if (launch.failed) here->fail("");
    if (++looks < 1000) return;
    launch.stuck[here->number] = now + 1;
    unsigned long stuck = 0;
    for (auto &since : launch.stuck) stuck += since == now + 1;
    unsigned long started = launch.cooperative ? launch.unfinished.load() : 1;
    if (stuck == started && launch.changes == now)
        here->fail("every block that was started waits for another one");
}

inline void run_block(Launch &launch, unsigned long number, unsigned char *shared)
{
    Block block(launch, number);
    here = &block;
    if (shared != nullptr) {
        memset(shared, UNWRITTEN, launch.shared);
        memset(shared + launch.shared, BEHIND, FENCE);
    }
    block.run();
    here = nullptr;
    for (size_t i = 0; shared != nullptr && i < FENCE; i++)
        if (shared[launch.shared + i] != BEHIND)
            return launch.fail("block " + std::to_string(number) + " wrote " + std::to_string(i) +
                               " bytes behind the end of its shared memory");
    launch.unfinished--;
    launch.changes++;
}

/* --- parameters of a kernel: "pf4" is a pointer to float, "i8" a number of 64 bits */

template <class P> std::string type_of()
{
    if constexpr (std::is_pointer_v<P>)
        return "p" + type_of<std::remove_cv_t<std::remove_pointer_t<P>>>();
    else
        return (std::is_same_v<P, bool>       ? "b"
                : std::is_floating_point_v<P> ? "f"
                : std::is_unsigned_v<P>       ? "u"
                                              : "i") +
               std::to_string(sizeof(P));
}

template <class... P> std::string types_of(void (*)(P...))
{
    std::string all;
    ((all += type_of<P>() + " "), ...);
    return all;
}

template <class... P, size_t... I>
void call_with(void (*kernel)(P...), void **args, std::index_sequence<I...>)
{
    kernel(*(P *)args[I]...);
}

template <class... P> void call(void (*kernel)(P...), void **args)
{
    call_with(kernel, args, std::index_sequence_for<P...>());
}

} // namespace cuda_on_cpu

/* --- what kernels call */

#define threadIdx (cuda_on_cpu::here->running->index)
#define blockIdx (cuda_on_cpu::here->index)
#define blockDim (cuda_on_cpu::here->launch.block)
#define gridDim (cuda_on_cpu::here->launch.grid)
#define __syncthreads() cuda_on_cpu::here->wait(__LINE__)
#define WAIT_WHILE(condition) \
    for (unsigned long looks = 0, seen = 0; condition;) cuda_on_cpu::relax(looks, seen)

template <class T> T atomicAdd(T *at, std::common_type_t<T> value)
{
    cuda_on_cpu::here->launch.changes++;
    return __atomic_fetch_add(at, value, __ATOMIC_SEQ_CST);
}
inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
template <class T> T __ldcg(const T *at) { return *at; }
template <class T> T min(T a, T b) { return a < b ? a : b; }
template <class T> T max(T a, T b) { return a < b ? b : a; }

/* --- what the loader appends to the text of a module */

#define CUDA_ON_CPU_KERNEL(name) \
    extern "C" void cuda_on_cpu_call_##name(void **args) { cuda_on_cpu::call(name, args); } \
    extern "C" const char *cuda_on_cpu_types_##name() \
    { \
        static std::string types = cuda_on_cpu::types_of(name); \
        return types.c_str(); \
    }

#define CUDA_ON_CPU_SHARED(type, name) \
    alignas(16) __thread type name[(cuda_on_cpu::MOST_SHARED + cuda_on_cpu::FENCE) / sizeof(type)]; \
    static unsigned char *cuda_on_cpu_shared() { return (unsigned char *)name; }

#define CUDA_ON_CPU_NOTHING_SHARED \
    static unsigned char *cuda_on_cpu_shared() { return nullptr; }

#define CUDA_ON_CPU_LAUNCH \
    extern "C" void cuda_on_cpu_launch(void (*call)(void **), void **args, const unsigned *sizes, \
                                       uint64_t shared, int cooperative, int descending, \
                                       char *message, uint64_t room) \
    { \
        cuda_on_cpu::Launch launch((unsigned long)sizes[0] * sizes[1] * sizes[2]); \
        launch.call = call, launch.args = args; \
        launch.grid = {sizes[0], sizes[1], sizes[2]}, launch.block = {sizes[3], sizes[4], sizes[5]}; \
        launch.shared = shared; \
        launch.cooperative = cooperative, launch.descending = descending; \
        auto run = [&](unsigned long n) { \
            cuda_on_cpu::run_block(launch, n, cuda_on_cpu_shared()); \
        }; \
        std::vector<std::thread> blocks; \
        for (unsigned long n = 0; n < launch.blocks && !launch.failed; n++) \
            if (cooperative) \
                blocks.emplace_back(run, n); \
            else \
                run(n); \
        for (auto &block : blocks) block.join(); \
        if (launch.failed) strncpy(message, launch.message.c_str(), room - 1); \
    }
