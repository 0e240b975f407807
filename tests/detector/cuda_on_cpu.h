/* As much of CUDA C as src/detector/cuda_kernels.cuh uses, on a CPU: a block's threads are contexts that take turns and
 * change over where they wait for each other. Slow, and enough to see that indices and sums are right without a card. */
#ifndef LB_TESTS_CUDA_ON_CPU_H
#define LB_TESTS_CUDA_ON_CPU_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include <cmath>
#include <functional>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __grid_constant__
#define __launch_bounds__(n)

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};
struct float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
inline float4 make_float4(float x, float y, float z, float w) {
    return {x, y, z, w};
}

struct __half {
    _Float16 value;
};
struct __half2 {
    __half x, y;
};
inline float __half2float(__half x) {
    return (float)x.value;
}
inline __half __float2half_rn(float x) {
    return {(_Float16)x};
}
inline float2 __half22float2(__half2 x) {
    return {(float)x.x.value, (float)x.y.value};
}
inline __half2 __floats2half2_rn(float x, float y) {
    return {__float2half_rn(x), __float2half_rn(y)};
}
inline float rsqrtf(float x) {
    return 1.0f / sqrtf(x);
}

namespace cuda_on_cpu {

enum waiting { RUNS, FOR_WARP, FOR_BLOCK, DONE };

struct thread {
    ucontext_t context;
    std::vector<char> stack;
    waiting state;
    float shuffled;
};

inline ucontext_t scheduler;
inline std::vector<thread> threads;
inline unsigned current;
inline const std::function<void()> *body;
inline float4 shared_memory[(96 << 10) / 16];

inline void wait(waiting what) {
    thread &self = threads[current];
    self.state = what;
    swapcontext(&self.context, &scheduler);
}

inline void enter() {
    (*body)();
    threads[current].state = DONE;
}

} // namespace cuda_on_cpu

inline dim3 threadIdx, blockIdx, blockDim, gridDim;
#define LB_SHARED(name) float4 *const name = cuda_on_cpu::shared_memory

inline void __syncthreads() {
    cuda_on_cpu::wait(cuda_on_cpu::FOR_BLOCK);
}

/* All threads of a warp that are left take part. */
inline float __shfl_xor_sync(unsigned, float x, int mask) {
    using namespace cuda_on_cpu;
    const unsigned self = current;
    threads[self].shuffled = x;
    wait(FOR_WARP);
    const float y = threads[self ^ (unsigned)mask].shuffled;
    wait(FOR_WARP);
    return y;
}

namespace cuda_on_cpu {

/* Lets go on whoever waits in vain no longer: a warp, or the block, whose threads all wait for the same. */
inline bool release(unsigned first, unsigned last, waiting what) {
    bool some = false;
    for (unsigned i = first; i < last; i++) {
        if (threads[i].state == DONE)
            continue;
        if (threads[i].state != what)
            return false;
        some = true;
    }
    for (unsigned i = first; some && i < last; i++)
        if (threads[i].state == what)
            threads[i].state = RUNS;
    return some;
}

inline void run_block(unsigned n) {
    for (unsigned i = 0; i < n; i++) {
        thread &t = threads[i];
        t.stack.resize(64 << 10);
        t.state = RUNS;
        getcontext(&t.context);
        t.context.uc_stack.ss_sp = t.stack.data();
        t.context.uc_stack.ss_size = t.stack.size();
        t.context.uc_link = &scheduler;
        makecontext(&t.context, enter, 0);
    }
    for (;;) {
        bool ran = false, left = false;
        for (unsigned i = 0; i < n; i++) {
            if (threads[i].state == RUNS) {
                current = i;
                threadIdx.x = i;
                swapcontext(&scheduler, &threads[i].context);
                ran = true;
            }
            left |= threads[i].state != DONE;
        }
        if (!left)
            return;
        bool released = release(0, n, FOR_BLOCK);
        for (unsigned i = 0; i < n && !released; i += 32)
            ran |= release(i, i + 32 < n ? i + 32 : n, FOR_WARP);
        if (!ran && !released) {
            fprintf(stderr, "threads of a block wait for each other in different places\n");
            abort();
        }
    }
}

/* kernel<<<grid, n_threads>>>(...) with the call as a function. */
inline void launch(dim3 grid, unsigned n_threads, const std::function<void()> &call) {
    threads.clear();
    threads.resize(n_threads);
    body = &call; /* for as long as this runs */
    blockDim = {n_threads, 1, 1};
    gridDim = grid;
    for (blockIdx.y = 0; blockIdx.y < grid.y; blockIdx.y++) {
        for (blockIdx.x = 0; blockIdx.x < grid.x; blockIdx.x++) {
            memset(shared_memory, 0xff, sizeof shared_memory); /* NaN where nothing was written */
            run_block(n_threads);
        }
    }
    body = nullptr;
}

} // namespace cuda_on_cpu

#endif
