//! Counting symbols, and the entropy of what was counted.

use super::log2::Log2;
use super::tally::Tally;
use crate::cpu::Path;
use crate::rans::Symbol;

/// Count `symbols` into `counts`, which is reset to one zero per symbol of the alphabet.
pub(crate) fn count<S: Symbol>(path: Path, symbols: &[S], alphabet: usize, counts: &mut Vec<u32>) {
    if let (Some(symbols), true) = (S::as_bytes(symbols), path != Path::Reference && alphabet <= 256) {
        let mut tally = Tally::default();
        tally.start(alphabet);
        tally.add(path, symbols);
        return tally.finish(path, counts);
    }
    counts.clear();
    counts.resize(alphabet, 0);
    symbols.iter().for_each(|symbol| counts[symbol.index()] += 1);
}

/// Shannon's bound for coding what was counted with one ideal static model, in bits:
/// `sum(n * log2(total / n))`.
pub(crate) fn entropy_bits(counts: impl IntoIterator<Item = u32>) -> f64 {
    let log2 = Log2::table();
    let (mut total, mut scattered) = (0_u64, 0.0);
    // A count of zero adds zero, which is cheaper than asking.
    for n in counts {
        total += u64::from(n);
        scattered += f64::from(n) * log2.of(n);
    }
    let log2_total = u32::try_from(total).map_or_else(|_| (total as f64).log2(), |n| log2.of(n));
    (total as f64 * log2_total - scattered).max(0.0)
}
