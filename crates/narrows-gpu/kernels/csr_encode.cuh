// Symbols to the modified CSR of the reference work: D = v + c + r, counted with one joint table.
#pragma once
#include "quantize.cuh"
#include "model.cuh"

// Symbols of each row that are not 0; the last block sums them up, and so learns how long D is. `jobs` is written to.
NARROWS_KERNEL(256, 3) csr_rows(EncodeJob* jobs) {
    const EncodeJob job = load_job(jobs);
    u32* scratch = (u32*)shared_memory();
    if (job.control[KIND] != CODED) return;
    for (u32 row = blockIdx.x * blockDim.x + threadIdx.x; row < job.csr_rows; row += gridDim.x * blockDim.x) {
        const u8* symbols = job.coded + (u64)row * job.csr_columns;
        u32 count = 0u;
        for (u32 column = 0u; column < job.csr_columns; column++) count += symbols[column] != 0u;
        job.row_starts[row] = count;
    }
    if (!is_last_block(&job.control[CSR_ARRIVALS], gridDim.x, scratch)) return;
    u32 before = 0u;
    for (u32 base = 0u; base < job.csr_rows; base += blockDim.x) {
        u32 row = base + threadIdx.x, total;
        u32 start = block_sum_before(row < job.csr_rows ? job.row_starts[row] : 0u, scratch, total);
        if (row < job.csr_rows) job.row_starts[row] = before + start;
        before += total;
    }
    if (threadIdx.x == 0u) {
        Geometry& g = jobs[blockIdx.y].geometry;
        job.row_starts[job.csr_rows] = before;
        job.control[NONZEROS] = before;
        g.planes = 2u * before + job.csr_rows;
        g.elements = g.planes;
        g.rows = divide_up(g.planes, g.lanes);
        g.chunks = divide_up(g.rows, g.chunk_rows);
    }
}

// D, and how often each of its symbols occurs; the last block makes the table.
NARROWS_KERNEL(256, 3) csr_gather(const EncodeJob* jobs) {
    const EncodeJob job = load_job(jobs);
    u8* shared = shared_memory();
    u32* cells = (u32*)shared;
    if (job.control[KIND] != CODED) return;
    for (u32 i = threadIdx.x; i < job.alphabet; i += blockDim.x) cells[i] = 0u;
    __syncthreads();
    u32 nonzeros = job.control[NONZEROS];
    for (u32 row = blockIdx.x * blockDim.x + threadIdx.x; row < job.csr_rows; row += gridDim.x * blockDim.x) {
        const u8* symbols = job.coded + (u64)row * job.csr_columns;
        u32 at = job.row_starts[row], count = job.row_starts[row + 1u] - at;
        for (u32 column = 0u; column < job.csr_columns; column++) {
            u32 symbol = symbols[column];
            if (symbol == 0u) continue;
            job.sequence[at] = (u16)symbol;
            job.sequence[nonzeros + at++] = (u16)column;
            atomicAdd(&cells[symbol], 1u);
            atomicAdd(&cells[column], 1u);
        }
        job.sequence[2u * nonzeros + row] = (u16)count;
        atomicAdd(&cells[count], 1u);
    }
    __syncthreads();
    for (u32 i = threadIdx.x; i < job.alphabet; i += blockDim.x) {
        if (cells[i] > 0u) atomicAdd(&job.counts[i], cells[i]);
    }
    if (is_last_block(&job.control[COUNT_ARRIVALS], gridDim.x, (u32*)shared)) phase_model(job, shared);
}
