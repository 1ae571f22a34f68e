// Tables in workgroup memory: 12 KiB, which every device has. A slot's symbol is found from its bucket's first symbol.

// Two cumulative frequencies to a word: at most 8 tables of 257.
var<workgroup> cumulative: array<u32, 1032>;
// Two buckets to a word, 4,096 for all tables together.
var<workgroup> buckets: array<u32, 2048>;

fn cumulative_at(index: u32) -> u32 {
    return (cumulative[index >> 1u] >> (16u * (index & 1u))) & 0xffffu;
}

fn load_cumulative(thread: u32) {
    let count = shape.tables * (shape.alphabet + 1u);
    for (var i = thread; i * 2u < count; i += WORKGROUP) {
        let high = select(0u, lists[CUMULATIVE + i * 2u + 1u], i * 2u + 1u < count);
        cumulative[i] = lists[CUMULATIVE + i * 2u] | (high << 16u);
    }
}

// The symbol of a slot, by halving.
fn symbol_by_search(table: u32, slot: u32) -> u32 {
    let base = table * (shape.alphabet + 1u);
    var low = 0u;
    var high = shape.alphabet;
    while (high - low > 1u) {
        let middle = (low + high) >> 1u;
        if (cumulative_at(base + middle) <= slot) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

fn fill_buckets(thread: u32) {
    let each = 1u << (shape.probability_bits - shape.bucket_shift);
    let count = shape.tables * each;
    for (var i = thread; i * 2u < count; i += WORKGROUP) {
        var word = 0u;
        for (var k = 0u; k < 2u; k++) {
            let bucket = i * 2u + k;
            let symbol = symbol_by_search(bucket / each, (bucket % each) << shape.bucket_shift);
            word |= symbol << (16u * k);
        }
        buckets[i] = word;
    }
}

struct Entry {
    symbol: u32,
    frequency: u32,
    bias: u32,
}

fn entry_of(table: u32, slot: u32) -> Entry {
    let base = table * (shape.alphabet + 1u);
    let bucket = (table << (shape.probability_bits - shape.bucket_shift)) + (slot >> shape.bucket_shift);
    var symbol = (buckets[bucket >> 1u] >> (16u * (bucket & 1u))) & 0xffffu;
    var low = cumulative_at(base + symbol);
    var high = cumulative_at(base + symbol + 1u);
    while (high <= slot) {
        symbol += 1u;
        low = high;
        high = cumulative_at(base + symbol + 1u);
    }
    return Entry(symbol, high - low, slot - low);
}
