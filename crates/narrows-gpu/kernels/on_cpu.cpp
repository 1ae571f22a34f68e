// The kernels as a program for tests: device memory comes in, kernels run over it, device memory goes out.
//
// Input, until it ends: u64 bytes of device memory, u64 launches; for each launch eight u32 (kernel, grid x, grid y, threads,
// shared bytes, at once, offset of the jobs, 0); the device memory. Output: the device memory. It lies at DEVICE, so that
// addresses in it can be written beforehand, between pages that cannot be touched.
#define NARROWS_ON_CPU
#include "narrows.cu"

static const uintptr_t DEVICE = 0x200000000000;

static bool read_all(void* to, size_t bytes) {
    return std::fread(to, 1, bytes, stdin) == bytes;
}

static void run(const unsigned* launch, unsigned char* device) {
    void* jobs = device + launch[6];
    auto with = [&](auto kernel, auto* of) {
        shim::launch({launch[1], launch[2], 1}, launch[3], launch[4], launch[5] != 0,
                     [=] { kernel((decltype(of))jobs); });
    };
    switch (launch[0]) {
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
    std::fprintf(stderr, "no kernel %u\n", launch[0]);
    std::exit(4);
}

int main() {
    for (unsigned long long head[2]; read_all(head, sizeof head);) {
        std::vector<unsigned> launches(head[1] * 8);
        if (!read_all(launches.data(), launches.size() * 4)) return 5;
        size_t pages = (head[0] + shim::PAGE - 1) / shim::PAGE * shim::PAGE;
        void* wanted = (void*)(DEVICE - shim::PAGE);
        int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE;
        void* room = mmap(wanted, pages + 2 * shim::PAGE, PROT_NONE, flags, -1, 0);
        if (room != wanted) return 6;
        unsigned char* device = (unsigned char*)DEVICE;
        if (mprotect(device, pages, PROT_READ | PROT_WRITE) != 0 || !read_all(device, head[0])) return 7;
        for (size_t i = 0; i < head[1]; i++) run(&launches[i * 8], device);
        if (std::fwrite(device, 1, head[0], stdout) != head[0] || std::fflush(stdout) != 0) return 8;
        munmap(room, pages + 2 * shim::PAGE);
    }
    return 0;
}
