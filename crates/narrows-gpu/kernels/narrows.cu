// Every kernel. Compiled by NVRTC to `narrows.ptx`, and by a C++ compiler through `cpu_shim.h` for tests.
// Kernels made for one kind of job (`src/cuda/special.rs`) are either of one half or of the other.
#ifndef NARROWS_WITHOUT_DECODE
#include "decode.cuh"
#include "csr.cuh"
#endif
#ifndef NARROWS_WITHOUT_ENCODE
#include "csr_encode.cuh"
#include "compact.cuh"

// Encoding as one launch after the other; grid: x over the tensor, y over jobs. What one block has to do alone is done by the
// last block of the launch before.

NARROWS_KERNEL(256, 3) encode_range(const EncodeJob* jobs) {
    const EncodeJob job = load_job(jobs);
    u32* shared = (u32*)shared_memory();
    phase_range(job, shared);
    if (is_last_block(&job.control[RANGE_ARRIVALS], gridDim.x, shared) && threadIdx.x == 0u) settle_map(job);
}

NARROWS_KERNEL(256, 3) encode_count(const EncodeJob* jobs) {
    const EncodeJob job = load_job(jobs);
    u8* shared = shared_memory();
    if (job.own_range == 0u) {
        // Every block writes the same; nobody reads it before this launch.
        if (threadIdx.x == 0u) settle_map(job);
        __threadfence();
        __syncthreads();
    }
    phase_count(job, shared);
    if (job.has_profile != 0u || job.csr_rows != 0u) return;
    if (is_last_block(&job.control[COUNT_ARRIVALS], gridDim.x, (u32*)shared)) phase_model(job, shared);
}

NARROWS_KERNEL(256, 3) encode_symbols(const EncodeJob* jobs) {
    const EncodeJob job = load_job(jobs);
    u8* shared = shared_memory();
    phase_encode(job, shared);
    if (is_last_block(&job.control[ENCODE_ARRIVALS], gridDim.x, (u32*)shared)) phase_directory(job, (u32*)shared);
}

NARROWS_KERNEL(256, 3) encode_compact(const EncodeJob* jobs) {
    const EncodeJob job = load_job(jobs);
    u32* shared = (u32*)shared_memory();
    phase_compact(job, shared);
    if (is_last_block(&job.control[COMPACT_ARRIVALS], gridDim.x, shared)) phase_finish(job);
}

// Wait until every block of the job is here. All blocks run at once: the launch is a cooperative one.
__device__ static inline void wait_for_blocks(const EncodeJob& job, u32& turn) {
    __threadfence();
    __syncthreads();
    turn += gridDim.x;
    if (threadIdx.x == 0u) {
        u32* arrived = &job.control[BARRIER];
        atomicAdd(arrived, 1u);
        while (*(volatile u32*)arrived < turn) pause_block();
    }
    __syncthreads();
    __threadfence();
}

// Encoding in one cooperative launch, for tensors small enough that launches are what they wait for.
NARROWS_KERNEL(256, 2) encode_at_once(const EncodeJob* jobs) {
    const EncodeJob job = load_job(jobs);
    u8* shared = shared_memory();
    // Arrivals so far, of all turns; the last block sets the counter back when everybody has passed.
    u32 turn = 0u;
    if (job.own_range != 0u) {
        phase_range(job, (u32*)shared);
        wait_for_blocks(job, turn);
    }
    if (blockIdx.x == 0u && threadIdx.x == 0u) settle_map(job);
    wait_for_blocks(job, turn);
    phase_count(job, shared);
    wait_for_blocks(job, turn);
    if (job.has_profile == 0u) {
        if (blockIdx.x == 0u) phase_model(job, shared);
        wait_for_blocks(job, turn);
    }
    phase_encode(job, shared);
    wait_for_blocks(job, turn);
    if (blockIdx.x == 0u) phase_directory(job, (u32*)shared);
    wait_for_blocks(job, turn);
    phase_compact(job, (u32*)shared);
    if (is_last_block(&job.control[COMPACT_ARRIVALS], gridDim.x, (u32*)shared)) phase_finish(job);
}
#endif
