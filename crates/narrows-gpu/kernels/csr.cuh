// The modified CSR of the reference work, after its sequence D = v + c + r has been decoded to symbols.
#pragma once
#include "element.cuh"

#define CSR_THREADS 256u

// Where each row's symbols begin: running sums of r. One block to a job.
NARROWS_KERNEL(256, 3) csr_starts(const CsrJob* jobs) {
    const CsrJob job = jobs[blockIdx.y];
    u32* scratch = (u32*)shared_memory();
    const u16* counts = job.symbols + 2ull * job.nonzeros;
    u32 before = 0u;
    for (u32 base = 0u; base < job.rows; base += blockDim.x) {
        u32 row = base + threadIdx.x, total;
        u32 start = block_sum_before(row < job.rows ? counts[row] : 0u, scratch, total);
        if (row < job.rows) job.starts[row] = before + start;
        // Cannot wrap: the sum is refused below once it is above the non-zeros.
        before = smaller(before + total, 0x7fffffffu);
    }
    if (threadIdx.x == 0u && before != job.nonzeros) atomicMin(job.status, BAD_COUNTS);
}

// Rows spread out to elements: a thread to a row.
NARROWS_KERNEL(256, 3) csr_spread(const CsrJob* jobs) {
    const CsrJob job = jobs[blockIdx.y];
    u32* values = (u32*)shared_memory();
    if (job.channels == 1u) {
        for (u32 s = threadIdx.x; s < job.levels; s += blockDim.x) values[s] = value_bits(job.maps[0], s, job.dtype);
    }
    __syncthreads();
    const u16* v = job.symbols;
    const u16* c = v + job.nonzeros;
    const u16* r = c + job.nonzeros;
    for (u32 row = blockIdx.x * blockDim.x + threadIdx.x; row < job.rows; row += gridDim.x * blockDim.x) {
        u32 next = smaller(job.starts[row], job.nonzeros), end = smaller(next + r[row], job.nonzeros);
        u32 column = 0u;
        while (column < job.columns) {
            u32 symbol = 0u;
            if (next < end && c[next] == column) {
                symbol = v[next++];
                if (symbol == 0u || symbol >= job.levels) {
                    atomicMin(job.status, BAD_VALUE);
                    symbol = 0u;
                }
            }
            u32 offset = row * job.columns + column++, channel = offset / job.inner % job.channels;
            u32 bits = job.channels == 1u ? values[symbol] : value_bits(job.maps[channel], symbol, job.dtype);
            store_bits(job.elements, job.dtype, offset, bits);
        }
        // A column out of order or beyond the row was never met.
        if (next < end) atomicMin(job.status, BAD_COLUMN);
    }
}
