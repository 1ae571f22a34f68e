// CUDA on a CPU, for tests: every thread is a coroutine; what a warp, a block or a grid does together is where they take
// turns. A warp operation that not all 32 lanes reach ends the program with an error.
#pragma once
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <vector>

#define __device__
#define NARROWS_KERNEL(threads, blocks) void
#define NARROWS_CONSTANT static const
#define NARROWS_UNROLL
#define NARROWS_UNROLL_BY(times)

namespace shim {

struct Index {
    unsigned x, y, z;
};

enum class Wait { Nothing, Warp, Block, Turn, Forever };

// A coroutine is entered once through `first`; from then on jumps do, which leave the signal mask alone and are
// ten times as fast.
struct Thread {
    ucontext_t first;
    jmp_buf again;
    bool entered = false;
    Wait wait = Wait::Nothing;
    unsigned turns = 0;
};

// What the lanes of a warp hand to each other: one buffer is filled while the other may still be read.
struct Exchange {
    unsigned values[2][32];
    const char* what[2][32];
};

struct Block {
    Index index;
    std::vector<Thread> threads;
    std::vector<Exchange> warps;
    unsigned char* shared = nullptr;
};

constexpr size_t STACK = 64 << 10;
constexpr size_t PAGE = 4096;

inline Block* block = nullptr;
inline unsigned current = 0;
inline jmp_buf scheduler;
inline std::function<void()> kernel;
// Changes from launch to launch, so that threads take turns in ever other orders: what a barrier is missing for shows up.
inline unsigned launches = 0;
inline std::vector<std::unique_ptr<char[]>> stacks;

[[noreturn]] inline void fail(const char* what, const char* detail) {
    std::fprintf(stderr, "%s (%s): block %u,%u thread %u\n", what, detail, block->index.x, block->index.y, current);
    std::exit(3);
}

inline void take_turns(Wait wait) {
    Block* mine = block;
    unsigned me = current;
    mine->threads[me].wait = wait;
    if (_setjmp(mine->threads[me].again) == 0) _longjmp(scheduler, 1);
    block = mine;
    current = me;
}

inline void start() {
    kernel();
    block->threads[current].wait = Wait::Forever;
    _longjmp(scheduler, 1);
}

// Everybody's value, once all lanes of the warp have given theirs to the same operation.
inline const unsigned* exchange(const char* what, unsigned value) {
    unsigned me = current, turn = block->threads[me].turns++ & 1;
    Exchange& warp = block->warps[me / 32];
    warp.values[turn][me % 32] = value;
    warp.what[turn][me % 32] = what;
    take_turns(Wait::Warp);
    for (unsigned lane = 0; lane < 32; lane++) {
        if (std::strcmp(warp.what[turn][lane], what) != 0) fail("lanes of a warp disagree", what);
    }
    return warp.values[turn];
}

inline void run(Block& b) {
    // Their number is a power of two, so an odd factor visits each once. Kept across jumps.
    const unsigned last = (unsigned)b.threads.size() - 1;
    for (volatile unsigned i = 0; i <= last; i = i + 1) {
        unsigned thread = (i * (2 * launches + 1) + 7 * launches) & last;
        Thread& t = b.threads[thread];
        if (t.wait != Wait::Nothing && t.wait != Wait::Turn) continue;
        block = &b;
        current = thread;
        t.wait = Wait::Nothing;
        if (_setjmp(scheduler) != 0) continue;
        if (t.entered) _longjmp(t.again, 1);
        t.entered = true;
        setcontext(&t.first);
    }
}

// Let those go on who have all arrived; whether anybody can.
inline bool release(Block& b) {
    size_t at_block = 0, done = 0;
    bool moved = false;
    for (size_t first = 0; first < b.threads.size(); first += 32) {
        size_t at_warp = 0, done_here = 0;
        for (size_t i = first; i < first + 32; i++) {
            Wait wait = b.threads[i].wait;
            at_warp += wait == Wait::Warp;
            at_block += wait == Wait::Block;
            done_here += wait == Wait::Forever;
            moved |= wait == Wait::Turn || wait == Wait::Nothing;
        }
        done += done_here;
        if (at_warp > 0 && at_warp + done_here == 32 && done_here > 0) {
            block = &b;
            current = (unsigned)first;
            fail("a warp operation that some lanes never reach", "the kernel ended");
        }
        if (at_warp == 32) {
            for (size_t i = first; i < first + 32; i++) b.threads[i].wait = Wait::Nothing;
            moved = true;
        }
    }
    if (at_block > 0 && at_block == b.threads.size()) {
        for (Thread& t : b.threads) t.wait = Wait::Nothing;
        moved = true;
    }
    return moved;
}

inline bool is_done(const Block& b) {
    for (const Thread& t : b.threads) {
        if (t.wait != Wait::Forever) return false;
    }
    return true;
}

inline void prepare(Block& b, Index index, unsigned threads, size_t shared, size_t first_stack) {
    b.index = index;
    b.threads = std::vector<Thread>(threads);
    b.warps = std::vector<Exchange>(threads / 32);
    // Shared memory ends where a page does, and what follows cannot be touched.
    size_t pages = (shared + PAGE - 1) / PAGE * PAGE;
    char* room = (char*)mmap(nullptr, pages + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(room + pages, PAGE, PROT_NONE);
    std::memset(room, 0xcd, pages);
    b.shared = (unsigned char*)room + (pages - (shared + 15) / 16 * 16);
    for (unsigned i = 0; i < threads; i++) {
        while (stacks.size() <= first_stack + i) stacks.emplace_back(new char[STACK]);
        ucontext_t& c = b.threads[i].first;
        getcontext(&c);
        c.uc_stack.ss_sp = stacks[first_stack + i].get();
        c.uc_stack.ss_size = STACK;
        c.uc_link = nullptr;
        makecontext(&c, start, 0);
    }
}

inline void finish(Block& b, size_t shared) {
    size_t pages = (shared + PAGE - 1) / PAGE * PAGE;
    munmap(b.shared + (shared + 15) / 16 * 16 - pages, pages + PAGE);
}

}  // namespace shim

inline shim::Index blockDim, gridDim;
struct ThreadIndex {
    struct X {
        operator unsigned() const { return shim::current; }
    } x;
};
inline ThreadIndex threadIdx;
#define blockIdx (shim::block->index)

namespace shim {

// Run a grid: block after block, or all at once where they wait for each other.
inline void launch(Index grid, unsigned threads, size_t shared, bool at_once, std::function<void()> body) {
    kernel = std::move(body);
    launches++;
    gridDim = grid;
    blockDim = {threads, 1, 1};
    size_t together = at_once ? (size_t)grid.x * grid.y : 1, count = (size_t)grid.x * grid.y;
    for (size_t first = 0; first < count; first += together) {
        std::vector<Block> blocks(together);
        for (size_t i = 0; i < together; i++) {
            // Blocks may come in any order, too.
            size_t at = launches % 2 == 0 ? first + i : count - 1 - first - i;
            Index index = {(unsigned)(at % grid.x), (unsigned)(at / grid.x), 0};
            prepare(blocks[i], index, threads, shared, i * threads);
        }
        for (bool live = true; live;) {
            live = false;
            bool moved = false;
            for (size_t i = 0; i < blocks.size(); i++) {
                Block& b = blocks[launches % 2 == 0 ? i : blocks.size() - 1 - i];
                run(b);
                moved |= release(b);
                live |= !is_done(b);
            }
            if (live && !moved) fail("threads wait for each other for ever", "barrier");
        }
        for (Block& b : blocks) finish(b, shared);
    }
}

}  // namespace shim

inline unsigned char* shared_memory() { return shim::block->shared; }
inline void pause_block() { shim::take_turns(shim::Wait::Turn); }
inline void __syncthreads() { shim::take_turns(shim::Wait::Block); }
inline void __syncwarp() { shim::exchange("syncwarp", 0); }
inline void __threadfence() {}
inline unsigned __ballot_sync(unsigned, bool yes) {
    const unsigned* values = shim::exchange("ballot", yes);
    unsigned votes = 0;
    for (unsigned lane = 0; lane < 32; lane++) votes |= values[lane] << lane;
    return votes;
}
inline unsigned __shfl_sync(unsigned, unsigned value, int lane) { return shim::exchange("shfl", value)[lane]; }
inline unsigned __shfl_xor_sync(unsigned, unsigned value, unsigned mask) {
    unsigned lane = shim::current % 32;
    return shim::exchange("shfl_xor", value)[lane ^ mask];
}
inline unsigned __shfl_up_sync(unsigned, unsigned value, unsigned distance) {
    unsigned lane = shim::current % 32;
    return shim::exchange("shfl_up", value)[lane >= distance ? lane - distance : lane];
}
inline unsigned atomicAdd(unsigned* at, unsigned value) { return *at += value, *at - value; }
inline unsigned atomicOr(unsigned* at, unsigned value) { unsigned old = *at; *at |= value; return old; }
inline unsigned atomicXor(unsigned* at, unsigned value) { unsigned old = *at; *at ^= value; return old; }
inline unsigned atomicMin(unsigned* at, unsigned value) { unsigned old = *at; if (value < old) *at = value; return old; }
inline unsigned atomicMax(unsigned* at, unsigned value) { unsigned old = *at; if (value > old) *at = value; return old; }
inline int __popc(unsigned value) { return __builtin_popcount(value); }
inline int __clz(int value) { return value == 0 ? 32 : __builtin_clz((unsigned)value); }
inline int __clzll(long long value) { return value == 0 ? 64 : __builtin_clzll((unsigned long long)value); }
inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((unsigned long long)a * b >> 32); }
inline float __uint_as_float(unsigned bits) { float value; std::memcpy(&value, &bits, 4); return value; }
inline unsigned __float_as_uint(float value) { unsigned bits; std::memcpy(&bits, &value, 4); return bits; }
// Compiled with -ffp-contract=off, so that each is rounded by itself.
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline float __double2float_rn(double value) { return (float)value; }
