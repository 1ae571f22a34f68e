// Read before every file of the second build of htscodecs, the one with USE_GATHER: other names for what both
// builds export, and the one function that release 1.6 forgot to define for it.

#define rans_compress_bound_4x16 gather_rans_compress_bound_4x16
#define rans_compress_to_4x16 gather_rans_compress_to_4x16
#define rans_compress_4x16 gather_rans_compress_4x16
#define rans_uncompress_to_4x16 gather_rans_uncompress_to_4x16
#define rans_uncompress_4x16 gather_rans_uncompress_4x16
#define rans_set_cpu gather_rans_set_cpu
#define rans_compress_O0_4x16 gather_rans_compress_O0_4x16
#define rans_compress_O1_4x16 gather_rans_compress_O1_4x16
#define rans_uncompress_O0_4x16 gather_rans_uncompress_O0_4x16
#define rans_uncompress_O1_4x16 gather_rans_uncompress_O1_4x16
#define rans_compute_shift gather_rans_compute_shift
#define rans_compress_O0_32x16 gather_rans_compress_O0_32x16
#define rans_compress_O1_32x16 gather_rans_compress_O1_32x16
#define rans_uncompress_O0_32x16 gather_rans_uncompress_O0_32x16
#define rans_uncompress_O1_32x16 gather_rans_uncompress_O1_32x16
#define rans_compress_O0_32x16_sse4 gather_rans_compress_O0_32x16_sse4
#define rans_uncompress_O0_32x16_sse4 gather_rans_uncompress_O0_32x16_sse4
#define rans_uncompress_O1_32x16_sse4 gather_rans_uncompress_O1_32x16_sse4
#define rans_compress_O0_32x16_avx2 gather_rans_compress_O0_32x16_avx2
#define rans_compress_O1_32x16_avx2 gather_rans_compress_O1_32x16_avx2
#define rans_uncompress_O0_32x16_avx2 gather_rans_uncompress_O0_32x16_avx2
#define rans_uncompress_O1_32x16_avx2 gather_rans_uncompress_O1_32x16_avx2
#define rans_compress_O0_32x16_avx512 gather_rans_compress_O0_32x16_avx512
#define rans_compress_O1_32x16_avx512 gather_rans_compress_O1_32x16_avx512
#define rans_uncompress_O0_32x16_avx512 gather_rans_uncompress_O0_32x16_avx512
#define rans_uncompress_O1_32x16_avx512 gather_rans_uncompress_O1_32x16_avx512

#ifdef __AVX512F__
#include <immintrin.h>

// One byte for each index. A hardware gather takes four, which may lie beyond the end of the input.
static inline __m512i _mm512_i32gather_epi32x1(__m512i indices, const void *bytes) {
    int index[16] __attribute__((aligned(64)));
    int value[16] __attribute__((aligned(64)));
    _mm512_store_si512((void *)index, indices);
    for (int i = 0; i < 16; i++)
        value[i] = ((const unsigned char *)bytes)[index[i]];
    return _mm512_load_si512((const void *)value);
}
#endif
