// FSE and Huff0, called as `fse.h` and `huf.h` describe and as zstd does: tables and scratch memory are kept
// from call to call.

#define FSE_STATIC_LINKING_ONLY
#define HUF_STATIC_LINKING_ONLY
#include "common/fse.h"
#include "common/huf.h"
#include "compress/hist.h"

#include <stdint.h>
#include <string.h>

#define MAX_TABLE_LOG 12
#define MAX_SYMBOL 255
#define FLAGS HUF_flags_bmi2

static FSE_CTable fse_ctable[FSE_CTABLE_SIZE_U32(MAX_TABLE_LOG, MAX_SYMBOL)];
static HUF_CElt huf_ctable[HUF_CTABLE_SIZE_ST(MAX_SYMBOL)];
static HUF_DTable huf_dtable[HUF_DTABLE_SIZE(MAX_TABLE_LOG)];
static uint64_t scratch[4096];

// Bytes written, or 0 if FSE would not make the input smaller (which no input here is).
size_t bench_fse_encode(void *out, size_t capacity, const void *in, size_t length) {
    unsigned count[MAX_SYMBOL + 1], largest = MAX_SYMBOL;
    short normalized[MAX_SYMBOL + 1];
    size_t most = HIST_count_wksp(count, &largest, in, length, scratch, sizeof scratch);
    if (HIST_isError(most) || most == length) return 0;
    unsigned log = FSE_optimalTableLog(0, length, largest);
    size_t result = FSE_normalizeCount(normalized, log, count, length, largest, length >= 2048);
    if (FSE_isError(result)) return 0;
    size_t head = FSE_writeNCount(out, capacity, normalized, largest, log);
    if (FSE_isError(head)) return 0;
    result = FSE_buildCTable_wksp(fse_ctable, normalized, largest, log, scratch, sizeof scratch);
    if (FSE_isError(result)) return 0;
    size_t body = FSE_compress_usingCTable((char *)out + head, capacity - head, in, length, fse_ctable);
    return FSE_isError(body) || body == 0 ? 0 : head + body;
}

// Symbols written, or 0.
size_t bench_fse_decode(void *out, size_t length, const void *in, size_t bytes) {
    size_t result = FSE_decompress_wksp_bmi2(out, length, in, bytes, MAX_TABLE_LOG, scratch, sizeof scratch, 1);
    return FSE_isError(result) ? 0 : result;
}

// A piece of at most 128 KiB, as Huff0 takes them. Bytes written, or 0.
size_t bench_huf_encode(void *out, size_t capacity, const void *in, size_t length) {
    HUF_repeat repeat = HUF_repeat_none;
    size_t result = HUF_compress4X_repeat(out, capacity, in, length, MAX_SYMBOL, HUF_TABLELOG_DEFAULT, scratch,
                                          sizeof scratch, huf_ctable, &repeat, FLAGS);
    return HUF_isError(result) ? 0 : result;
}

// Symbols written, or 0.
size_t bench_huf_decode(void *out, size_t length, const void *in, size_t bytes) {
    huf_dtable[0] = (HUF_DTable)MAX_TABLE_LOG * 0x01000001;
    size_t result = HUF_decompress4X_hufOnly_wksp(huf_dtable, out, length, in, bytes, scratch, sizeof scratch, FLAGS);
    return HUF_isError(result) ? 0 : result;
}
