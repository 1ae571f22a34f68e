//! The state machine: which symbol each state decodes to, how many bits it takes, where it goes.
//!
//! All in integers, so that every machine builds the same one.

use crate::model::Table;

/// What a state does when it is decoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) symbol: u8,
    /// Bits read to find the next state.
    pub(crate) bits: u8,
    /// The next state is `base` plus the bits read.
    pub(crate) base: u16,
}

/// The machine for one frequency table of `2^bits` in all; the alphabet has at most 256 symbols.
#[derive(Debug, Default)]
pub(crate) struct Machine {
    pub(crate) bits: u32,
    pub(crate) states: Vec<State>,
    /// For each symbol `s`, from `c[s]` on: the states that decode to it, ascending.
    pub(crate) of_symbol: Vec<u16>,
    /// Occurrences in spread order: `(2 i + 1, f, symbol)` for occurrence `i` of a symbol.
    spread: Vec<(u32, u32, u8)>,
}

impl Machine {
    /// Build the machine of `table`.
    ///
    /// Spread: occurrence `i` of a symbol with frequency `f` belongs at `(2 i + 1) / (2 f)` of the way
    /// through the states; states are dealt out in that order, lower symbols first among equals. The
    /// `k`-th state of a symbol stands for `x = f + k` in `[f, 2 f)`; with `L = 2^bits` it reads
    /// `n = bits - floor(log2 x)` bits and goes on to `x * 2^n - L` plus these.
    pub(crate) fn set(&mut self, table: &Table) {
        self.bits = table.bits();
        self.spread.clear();
        for (symbol, &f) in table.frequencies().iter().enumerate() {
            let f = u32::from(f);
            self.spread.extend((0..f).map(|i| (2 * i + 1, f, symbol as u8)));
        }
        self.spread.sort_unstable_by_key_ratio();
        self.states.clear();
        self.of_symbol.clear();
        self.of_symbol.resize(self.spread.len(), 0);
        let mut used = [0_u32; 256];
        for (at, &(_, f, symbol)) in self.spread.iter().enumerate() {
            let nth = &mut used[symbol as usize];
            let x = f + *nth;
            self.of_symbol[table.cumulative()[symbol as usize] as usize + *nth as usize] = at as u16;
            *nth += 1;
            let bits = self.bits - x.ilog2();
            self.states.push(State {
                symbol,
                bits: bits as u8,
                base: ((x << bits) - (1 << self.bits)) as u16,
            });
        }
    }
}

trait SortByRatio {
    fn sort_unstable_by_key_ratio(&mut self);
}

impl SortByRatio for Vec<(u32, u32, u8)> {
    /// By `numerator / denominator`, then by symbol.
    fn sort_unstable_by_key_ratio(&mut self) {
        self.sort_unstable_by(|a, b| (a.0 * b.1).cmp(&(b.0 * a.1)).then(a.2.cmp(&b.2)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_is_reached_and_leads_to_a_state() {
        for bits in super::super::STATE_BITS {
            let mut table = Table::default();
            for weights in [vec![1, 1], vec![900, 5, 0, 70, 1], (1..=40).collect(), vec![0, 1_000_000, 1]] {
                table.normalize(&weights, bits).unwrap();
                let mut machine = Machine::default();
                machine.set(&table);
                assert_eq!(machine.states.len(), 1 << bits);
                let mut reached = vec![0; 1 << bits];
                // For each symbol its states lead to every state exactly once.
                for state in &machine.states {
                    for low in 0..1 << state.bits {
                        reached[state.base as usize + low] += 1;
                    }
                }
                let symbols = table.frequencies().iter().filter(|&&f| f > 0).count();
                assert!(reached.iter().all(|&n| n == symbols), "{weights:?} at {bits} bits");
            }
        }
    }

    #[test]
    fn a_small_machine_is_the_one_worked_out_by_hand() {
        // f = 5, 3 of 8: the places are .1 .3 .5 .7 .9 and 1/6 1/2 5/6; at .5 the lower symbol goes first.
        let mut table = Table::default();
        table.normalize(&[5, 3], 3).unwrap();
        let mut machine = Machine::default();
        machine.set(&table);
        let symbols: Vec<u8> = machine.states.iter().map(|state| state.symbol).collect();
        assert_eq!(symbols, [0, 1, 0, 0, 1, 0, 1, 0]);
        // x = 5 6 7 8 9 for symbol 0: 1 bit up to 7 (5*2-8, 6*2-8, 7*2-8), none from 8 on.
        let of_zero: Vec<(u8, u16)> =
            machine.states.iter().filter(|s| s.symbol == 0).map(|s| (s.bits, s.base)).collect();
        assert_eq!(of_zero, [(1, 2), (1, 4), (1, 6), (0, 0), (0, 1)]);
    }
}
