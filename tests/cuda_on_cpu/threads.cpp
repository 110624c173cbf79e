/* Runs what g++ makes of CUDA C (cuda_on_cpu.h): launches, their blocks, the threads of a block. */

#include "cuda_on_cpu.h"
#include <atomic>
#include <mutex>
#include <sched.h>
#include <string>
#include <sys/mman.h>
#include <thread>
#include <utility>
#include <vector>
#ifndef __x86_64__
#include <ucontext.h>
#endif

__thread cuda_on_cpu_place *cuda_on_cpu_here;

enum { STACK = 1 << 16, FENCE = CUDA_ON_CPU_FENCE, LOOKS = 20 };
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
static void change(Context &from, Context &to) { cuda_on_cpu_switch(&from, to); }
static void prepare(Context &context, char *stack, void (*begin)())
{
    void **top = (void **)(stack + STACK) - 2; /* a call leaves the stack 8 above a multiple of 16 */
    top[0] = (void *)begin;
    top[1] = nullptr;
    context = top - 6;
}
#else
using Context = ucontext_t;
static void change(Context &from, Context &to) { swapcontext(&from, &to); }
static void prepare(Context &context, char *stack, void (*begin)())
{
    getcontext(&context);
    context.uc_stack.ss_sp = stack;
    context.uc_stack.ss_size = STACK;
    makecontext(&context, begin, 0);
}
#endif

static std::vector<char *> free_stacks;
static std::mutex stacks;

static char *take_stack()
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
    uint64_t blocks;
    std::atomic<uint64_t> unfinished, changes{0}; /* atomic operations, and blocks that ended */
    std::vector<std::atomic<uint64_t>> stuck;     /* of each block: after so many changes */
    std::atomic<bool> failed{false};
    std::mutex mutex;
    std::string message;

    explicit Launch(uint64_t count) : blocks(count), unfinished(count), stuck(count) {}
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
    uint64_t number;
    std::vector<Thread> threads;
    Context scheduler;
    Thread *running = nullptr;
    cuda_on_cpu_place place;

    Block(Launch &l, uint64_t n);
    void run();
    void resume(Thread &thread);
    void release();
    void wait(int line);
    [[noreturn]] void fail(const std::string &why);
};

static __thread Block *here = nullptr;

static dim3 place_of(size_t i, dim3 sizes)
{
    return {(unsigned)(i % sizes.x), (unsigned)(i / sizes.x % sizes.y),
            (unsigned)(i / sizes.x / sizes.y)};
}

Block::Block(Launch &l, uint64_t n)
    : launch(l), number(n), threads((size_t)l.block.x * l.block.y * l.block.z)
{
    place = {{}, place_of(n, l.grid), l.block, l.grid};
    for (size_t i = 0; i < threads.size(); i++) threads[i].index = place_of(i, l.block);
}

static void begin_thread()
{
    here->launch.call(here->launch.args);
    here->running->state = State::DONE;
    change(here->running->context, here->scheduler);
}

void Block::resume(Thread &thread)
{
    running = &thread;
    place.thread = thread.index;
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
void Block::release()
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

void Block::run()
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

void Block::wait(int line)
{
    running->state = State::WAITING;
    running->line = line;
    change(running->context, scheduler);
}

void Block::fail(const std::string &why)
{
    launch.fail(why);
    change(running->context, scheduler); /* which does not come back */
    __builtin_unreachable();
}

/* In a loop that waits for another block. If every block that is left has looked since the last change,
   none can go on. */
extern "C" void cuda_on_cpu_relax(uint64_t *looks, uint64_t *seen)
{
    Launch &launch = here->launch;
    sched_yield();
    uint64_t now = launch.changes;
    if (now != *seen) *looks = 0;
    *seen = now;
    if (launch.failed) here->fail("");
    if (++*looks < LOOKS) return;
    launch.stuck[here->number] = now + 1;
    uint64_t stuck = 0;
    for (auto &since : launch.stuck) stuck += since == now + 1;
    uint64_t started = launch.cooperative ? launch.unfinished.load() : 1;
    if (stuck == started && launch.changes == now)
        here->fail("every block that was started waits for another one");
}

static void run_block(Launch &launch, uint64_t number, unsigned char *shared)
{
    Block block(launch, number);
    here = &block;
    cuda_on_cpu_here = &block.place;
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

extern "C" void cuda_on_cpu_wait(int line) { here->wait(line); }
extern "C" void cuda_on_cpu_change() { here->launch.changes++; }

/* `run` and `shared` are the module's; sizes: grid, then block. A message says what went wrong. */
extern "C" void cuda_on_cpu_launch(void (*run)(void **), unsigned char *(*shared)(), void **args,
                                   const unsigned *sizes, uint64_t bytes, int cooperative,
                                   int descending, char *message, uint64_t room)
{
    Launch launch((uint64_t)sizes[0] * sizes[1] * sizes[2]);
    launch.call = run, launch.args = args, launch.shared = bytes;
    launch.grid = {sizes[0], sizes[1], sizes[2]}, launch.block = {sizes[3], sizes[4], sizes[5]};
    launch.cooperative = cooperative, launch.descending = descending;
    std::vector<std::thread> blocks;
    for (uint64_t n = 0; n < launch.blocks && !launch.failed; n++)
        if (cooperative)
            blocks.emplace_back([&, n] { run_block(launch, n, shared()); });
        else
            run_block(launch, n, shared());
    for (auto &block : blocks) block.join();
    if (launch.failed) strncpy(message, launch.message.c_str(), room - 1);
}
