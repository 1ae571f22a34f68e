// A CUDA driver for tests, on a machine that has none: device memory is the host's, and kernels are narrows-gpu's own,
// compiled as C++ by their shim. Streams and contexts are names, and what was done on which stream is written down.
#define NARROWS_ON_CPU
#include "narrows.cu"

#include <map>
#include <mutex>
#include <set>
#include <string>

#define CALL extern "C" __attribute__((visibility("default"))) int

using Address = unsigned long long;
using Handle = void*;

static const int INVALID = 1, OUT_OF_MEMORY = 2, NOT_INITIALIZED = 3, NO_DEVICE = 101, NOT_FOUND = 500;
static const int DEVICES = 2;

static std::recursive_mutex lock;
static bool initialized = false;
static std::map<std::string, int> names = {
    {"decode", 0},         {"csr_starts", 1},     {"csr_spread", 2},     {"encode_range", 3}, {"encode_count", 4},
    {"encode_symbols", 5}, {"encode_compact", 6}, {"encode_at_once", 7}, {"csr_rows", 8},     {"csr_gather", 9},
};
// Work on each stream since it was last asked.
static std::map<Handle, int> launches;
static std::set<Handle> streams;
static std::map<Address, size_t> taken;
static thread_local Handle context = nullptr;

static Handle handle(size_t number) { return (Handle)(number << 8); }

#define GUARD                                         \
    std::lock_guard<std::recursive_mutex> held(lock); \
    if (!initialized) return NOT_INITIALIZED

CALL cuInit(unsigned) {
    initialized = true;
    return 0;
}
CALL cuDeviceGet(int* device, int ordinal) {
    GUARD;
    *device = ordinal;
    return ordinal >= 0 && ordinal < DEVICES ? 0 : NO_DEVICE;
}
CALL cuDeviceGetCount(int* count) {
    *count = DEVICES;
    return 0;
}
CALL cuDeviceGetName(char* name, int length, int) {
    std::snprintf(name, (size_t)length, "a CPU in disguise");
    return 0;
}
CALL cuDeviceGetAttribute(int* value, int attribute, int) {
    GUARD;
    // Multiprocessors (16), compute capability 9.0 (75, 76); no memory pools (115).
    *value = attribute == 16 ? 4 : attribute == 75 ? 9 : 0;
    return 0;
}
CALL cuDevicePrimaryCtxRetain(Handle* made, int device) {
    GUARD;
    *made = handle(0x1000 + (size_t)device);
    return 0;
}
CALL cuDevicePrimaryCtxRelease_v2(int) { return 0; }
CALL cuCtxGetCurrent(Handle* current) {
    GUARD;
    *current = context;
    return 0;
}
CALL cuCtxSetCurrent(Handle wanted) {
    GUARD;
    context = wanted;
    return 0;
}
CALL cuCtxSynchronize() { return context == nullptr ? INVALID : 0; }
CALL cuGetErrorName(int error, const char** text) {
    *text = error == INVALID ? "CUDA_ERROR_INVALID_VALUE" : "CUDA_ERROR";
    return 0;
}
CALL cuGetErrorString(int error, const char** text) { return cuGetErrorName(error, text); }

CALL cuModuleLoadData(Handle* module, const void*) {
    GUARD;
    *module = handle(0x2000);
    return context == nullptr ? INVALID : 0;
}
CALL cuModuleUnload(Handle) { return 0; }
CALL cuModuleGetFunction(Handle* function, Handle, const char* name) {
    GUARD;
    auto found = names.find(name);
    *function = found == names.end() ? nullptr : handle(0x3000 + (size_t)found->second);
    return found == names.end() ? NOT_FOUND : 0;
}
CALL cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, Handle, int, size_t) {
    *blocks = 1;
    return 0;
}
CALL cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, Handle, int, size_t, unsigned) {
    *blocks = 1;
    return 0;
}

CALL cuMemAlloc_v2(Address* address, size_t bytes) {
    GUARD;
    if (context == nullptr || bytes == 0) return INVALID;
    if (bytes > (size_t)1 << 30) return OUT_OF_MEMORY;
    void* memory = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
    std::memset(memory, 0xa5, bytes);
    *address = (Address)memory;
    taken[*address] = bytes;
    return 0;
}
CALL cuMemFree_v2(Address address) {
    GUARD;
    if (taken.erase(address) == 0) return INVALID;
    std::free((void*)address);
    return 0;
}
CALL cuMemHostAlloc(void** memory, size_t bytes, unsigned) {
    *memory = std::malloc(bytes);
    return 0;
}
CALL cuMemFreeHost(void* memory) {
    std::free(memory);
    return 0;
}
CALL cuMemGetInfo_v2(size_t* available, size_t* total) {
    *available = *total = (size_t)1 << 30;
    return 0;
}
static int copy(void* to, const void* from, size_t bytes, Handle stream) {
    GUARD;
    if (context == nullptr || streams.count(stream) == 0) return INVALID;
    std::memcpy(to, from, bytes);
    return 0;
}
CALL cuMemcpyHtoDAsync_v2(Address to, const void* from, size_t bytes, Handle stream) {
    return copy((void*)to, from, bytes, stream);
}
CALL cuMemcpyDtoHAsync_v2(void* to, Address from, size_t bytes, Handle stream) {
    return copy(to, (const void*)from, bytes, stream);
}

CALL cuStreamCreate(Handle* stream, unsigned) {
    GUARD;
    static size_t made = 0x4000;
    *stream = handle(++made);
    streams.insert(*stream);
    return context == nullptr ? INVALID : 0;
}
CALL cuStreamDestroy_v2(Handle stream) {
    GUARD;
    return streams.erase(stream) == 1 ? 0 : INVALID;
}
CALL cuStreamSynchronize(Handle stream) {
    GUARD;
    return streams.count(stream) == 1 ? 0 : INVALID;
}
CALL cuStreamWaitEvent(Handle, Handle, unsigned) { return 0; }
CALL cuEventCreate(Handle* event, unsigned) {
    *event = handle(0x5000);
    return 0;
}
CALL cuEventRecord(Handle, Handle) { return 0; }
CALL cuEventSynchronize(Handle) { return 0; }
CALL cuEventDestroy_v2(Handle) { return 0; }

static int launch(Handle function, unsigned x, unsigned y, unsigned threads, unsigned shared, Handle stream,
                  void** parameters, bool at_once) {
    GUARD;
    if (context == nullptr || streams.count(stream) == 0) return INVALID;
    launches[stream]++;
    void* jobs = *(void**)parameters[0];
    auto with = [&](auto kernel, auto* of) {
        shim::launch({x, y, 1}, threads, shared, at_once, [=] { kernel((decltype(of))jobs); });
        return 0;
    };
    switch (((size_t)function >> 8) - 0x3000) {
        case 0: return with(decode, (const DecodeJob*)nullptr);
        case 1: return with(csr_starts, (const CsrJob*)nullptr);
        case 2: return with(csr_spread, (const CsrJob*)nullptr);
        case 3: return with(encode_range, (const EncodeJob*)nullptr);
        case 4: return with(encode_count, (const EncodeJob*)nullptr);
        case 5: return with(encode_symbols, (const EncodeJob*)nullptr);
        case 6: return with(encode_compact, (const EncodeJob*)nullptr);
        case 7: return with(encode_at_once, (const EncodeJob*)nullptr);
        case 8: return with(csr_rows, (EncodeJob*)nullptr);
        case 9: return with(csr_gather, (const EncodeJob*)nullptr);
    }
    return INVALID;
}
CALL cuLaunchKernel(Handle function, unsigned x, unsigned y, unsigned, unsigned threads, unsigned, unsigned,
                    unsigned shared, Handle stream, void** parameters, void**) {
    return launch(function, x, y, threads, shared, stream, parameters, false);
}
CALL cuLaunchCooperativeKernel(Handle function, unsigned x, unsigned y, unsigned, unsigned threads, unsigned, unsigned,
                               unsigned shared, Handle stream, void** parameters) {
    return launch(function, x, y, threads, shared, stream, parameters, true);
}

// Of the tests: kernels that were launched on a stream since they last asked.
CALL launched_on(Handle stream) {
    std::lock_guard<std::recursive_mutex> held(lock);
    int count = launches[stream];
    launches.erase(stream);
    return count;
}
