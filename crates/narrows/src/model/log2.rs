//! Logarithms of counts, looked up: a planner asks for thousands, nearly all of small numbers.

use std::sync::OnceLock;

/// Numbers below this are looked up; every frequency of a table is.
const LOOKUP: usize = 1 << 14;

/// `log2` of whole numbers, with `log2(0)` = 0, so that `n * log2(n)` is 0 where `n` is.
///
/// The very values of [`f64::log2`]: what is decided by them does not depend on the table.
#[derive(Clone, Copy)]
pub(crate) struct Log2(&'static [f64; LOOKUP]);

impl Log2 {
    /// The table, made once.
    pub(crate) fn table() -> Self {
        static TABLE: OnceLock<Box<[f64; LOOKUP]>> = OnceLock::new();
        Self(TABLE.get_or_init(|| {
            let values: Box<[f64]> =
                (0..LOOKUP).map(|n| if n == 0 { 0.0 } else { (n as f64).log2() }).collect();
            values.try_into().expect("as many values as numbers")
        }))
    }

    /// `log2(n)`.
    #[inline]
    pub(crate) fn of(self, n: u32) -> f64 {
        match self.0.get(n as usize) {
            Some(&value) => value,
            None => f64::from(n).log2(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_logarithm_is_the_librarys() {
        let log2 = Log2::table();
        for n in (1..20_000).chain([u32::MAX]) {
            assert_eq!(log2.of(n).to_bits(), f64::from(n).log2().to_bits());
        }
        assert_eq!(log2.of(0), 0.0);
    }
}
