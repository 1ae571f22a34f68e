// What the kernels need of the platform, CUDA or the CPU shim. No CUDA headers: NVRTC has them built in.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef int i32;

#ifdef NARROWS_ON_CPU
#include "cpu_shim.h"
#else
// At least so many blocks on a multiprocessor, so that the compiler does not spill registers for more.
#define NARROWS_KERNEL(threads, blocks) extern "C" __global__ void __launch_bounds__(threads, blocks)
#define NARROWS_CONSTANT __constant__
#define NARROWS_UNROLL _Pragma("unroll")
#define NARROWS_UNROLL_BY(times) _Pragma(NARROWS_TEXT(unroll times))
#define NARROWS_TEXT(...) #__VA_ARGS__
// The workgroup's dynamic shared memory.
__device__ static inline u8* shared_memory() {
    extern __shared__ __align__(16) u8 arena[];
    return arena;
}
// Between two looks at a counter that another block moves.
__device__ static inline void pause_block() {}
#endif

// What lies at a place of it, in bytes. Pointers found so are known by the compiler to be of shared memory.
template <typename T>
__device__ static inline T* shared_at(u32 offset) {
    return (T*)(shared_memory() + offset);
}

// Four words that are loaded together, from a multiple of 16.
struct alignas(16) FourWords {
    u32 word[4];
};

#define WARP 32u
#define ALL_LANES 0xffffffffu

__device__ static inline u32 lane_of(u32 thread) { return thread & 31u; }

__device__ static inline u32 lanes_below(u32 votes, u32 lane) { return __popc(votes & ((1u << lane) - 1u)); }

__device__ static inline u32 smaller(u32 a, u32 b) { return a < b ? a : b; }
__device__ static inline u32 larger(u32 a, u32 b) { return a > b ? a : b; }
__device__ static inline u32 divide_up(u32 a, u32 b) { return (a + b - 1u) / b; }

// Bits that tell `count` values apart.
__device__ static inline u32 width_of(u32 count) { return count <= 1u ? 0u : 32u - (u32)__clz((int)(count - 1u)); }

__device__ static inline u32 warp_sum(u32 value) {
    for (u32 step = 16u; step > 0u; step >>= 1) value += __shfl_xor_sync(ALL_LANES, value, step);
    return value;
}

__device__ static inline u32 warp_xor(u32 value) {
    for (u32 step = 16u; step > 0u; step >>= 1) value ^= __shfl_xor_sync(ALL_LANES, value, step);
    return value;
}

// The sum of this lane's value and those of lower lanes.
__device__ static inline u32 warp_running_sum(u32 value, u32 lane) {
    for (u32 step = 1u; step < WARP; step <<= 1) {
        u32 other = __shfl_up_sync(ALL_LANES, value, step);
        if (lane >= step) value += other;
    }
    return value;
}

// The sum over the threads before this one; `total` is that of all. `scratch` is 33 words of shared memory.
__device__ static inline u32 block_sum_before(u32 value, u32* scratch, u32& total) {
    u32 lane = lane_of(threadIdx.x), warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    u32 running = warp_running_sum(value, lane);
    __syncthreads();
    if (lane == WARP - 1u) scratch[warp] = running;
    __syncthreads();
    if (warp == 0u) {
        u32 mine = lane < warps ? scratch[lane] : 0u;
        u32 sums = warp_running_sum(mine, lane);
        scratch[lane] = sums - mine;
        if (lane == WARP - 1u) scratch[32] = sums;
    }
    __syncthreads();
    total = scratch[32];
    return scratch[warp] + running - value;
}

// Whether this block is the last of the job's to get here; what the others wrote before is visible to it.
__device__ static inline bool is_last_block(u32* arrivals, u32 blocks, u32* flag) {
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0u) *flag = atomicAdd(arrivals, 1u) == blocks - 1u;
    __syncthreads();
    bool last = *flag != 0u;
    __threadfence();
    __syncthreads();
    return last;
}
