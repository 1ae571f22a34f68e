//! Counting symbols, and the entropy of what was counted.

use crate::rans::Symbol;

/// Count `symbols` into `counts`, which is reset to one zero per symbol of the alphabet.
pub(crate) fn count<S: Symbol>(symbols: &[S], alphabet: usize, counts: &mut Vec<u32>) {
    counts.clear();
    counts.resize(alphabet, 0);
    symbols.iter().for_each(|symbol| counts[symbol.index()] += 1);
}

/// Shannon's bound for coding what was counted with one ideal static model, in bits:
/// `sum(n * log2(total / n))`.
pub(crate) fn entropy_bits(counts: impl IntoIterator<Item = u32>) -> f64 {
    let (mut total, mut scattered) = (0_u64, 0.0);
    for n in counts.into_iter().filter(|&n| n > 0) {
        total += u64::from(n);
        scattered += f64::from(n) * f64::from(n).log2();
    }
    let total = total as f64;
    if total == 0.0 { 0.0 } else { (total * total.log2() - scattered).max(0.0) }
}
