/* Lets g++ compile CUDA C, unchanged, into code that runs on the CPU by threads.cpp.

   A block runs in one thread of the system, and the threads of a block are fibers: each runs until it
   waits for the others, then the next one does. The blocks of a cooperative launch run side by side,
   those of any other one after the other.

   What is wrong in a kernel shows: shared memory begins as NaN and must not be written behind its
   end; the threads of a block must meet at one __syncthreads, all of them; where all wait for each
   other, the launch fails. A barrier that is left out shows where a thread reads what one after it
   writes: run a kernel in both orders, ascending and descending.

   It has what the kernels of this project use: dynamic shared memory, no static one; no shuffles; other
   blocks are waited for by WAIT_WHILE, in one thread of a block, and what they wait for is changed by
   atomicAdd. It cannot know time, nor what the caches of a device keep from one block to another: what other blocks
   write is seen at once. */

#pragma once
#include <stdint.h>
#include <string.h>

#define __CUDACC__
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __shared__ __thread /* a block is a thread of the system */

enum { CUDA_ON_CPU_MOST_SHARED = 232448, CUDA_ON_CPU_FENCE = 1 << 16 }; /* bytes */

struct dim3 {
    unsigned x, y, z;
};
struct alignas(16) float4 {
    float x, y, z, w;
};

struct cuda_on_cpu_place {
    dim3 thread, block, threads, blocks;
};

extern "C" {
extern __thread cuda_on_cpu_place *cuda_on_cpu_here;
void cuda_on_cpu_wait(int line);
void cuda_on_cpu_change();
void cuda_on_cpu_relax(uint64_t *looks, uint64_t *seen);
double sqrt(double) noexcept;
double log(double) noexcept;
}

#define threadIdx (cuda_on_cpu_here->thread)
#define blockIdx (cuda_on_cpu_here->block)
#define blockDim (cuda_on_cpu_here->threads)
#define gridDim (cuda_on_cpu_here->blocks)
#define __syncthreads() cuda_on_cpu_wait(__LINE__)
#define WAIT_WHILE(condition) \
    for (uint64_t looks = 0, seen = 0; condition;) cuda_on_cpu_relax(&looks, &seen)

inline unsigned atomicAdd(unsigned *at, unsigned value)
{
    unsigned before = __atomic_fetch_add(at, value, __ATOMIC_SEQ_CST);
    cuda_on_cpu_change();
    return before;
}
inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
template <class T> T __ldcg(const T *at) { return *at; }
template <class T> T min(T a, T b) { return a < b ? a : b; }

/* --- what the loader appends to the text of a module

   The type of a parameter is told by a letter and its size: f4; of a pointer, p before that. */

#define CUDA_ON_CPU_TYPE(type, code) \
    inline const char *cuda_on_cpu_type(type *) { return code; } \
    inline const char *cuda_on_cpu_type(type **) { return "p" code; } \
    inline const char *cuda_on_cpu_type(const type **) { return "p" code; }

CUDA_ON_CPU_TYPE(bool, "b1")
CUDA_ON_CPU_TYPE(uint8_t, "u1")
CUDA_ON_CPU_TYPE(int32_t, "i4")
CUDA_ON_CPU_TYPE(uint32_t, "u4")
CUDA_ON_CPU_TYPE(int64_t, "i8")
CUDA_ON_CPU_TYPE(uint64_t, "u8")
CUDA_ON_CPU_TYPE(float, "f4")
CUDA_ON_CPU_TYPE(double, "f8")

template <class... P> struct cuda_on_cpu_call {
    cuda_on_cpu_call(void (*kernel)(P...), P... args) { kernel(args...); }
};
template <class... P> void cuda_on_cpu_run(void (*kernel)(P...), void **args)
{
    cuda_on_cpu_call<P...>{kernel, *(P *)*args++...}; /* braces: from left to right */
}
template <class... P> void cuda_on_cpu_types(void (*)(P...), const char **types)
{
    ((*types++ = cuda_on_cpu_type((P *)nullptr)), ...);
    *types = nullptr;
}

#define CUDA_ON_CPU_KERNEL(name) \
    extern "C" void cuda_on_cpu_run_##name(void **args) { cuda_on_cpu_run(name, args); } \
    extern "C" void cuda_on_cpu_types_##name(const char **types) { cuda_on_cpu_types(name, types); }

#define CUDA_ON_CPU_SHARED(type, name) \
    alignas(16) __thread type \
        name[(CUDA_ON_CPU_MOST_SHARED + CUDA_ON_CPU_FENCE) / sizeof(type) + 1]; \
    extern "C" unsigned char *cuda_on_cpu_shared() { return (unsigned char *)name; }

#define CUDA_ON_CPU_NOTHING_SHARED \
    extern "C" unsigned char *cuda_on_cpu_shared() { return nullptr; }
