//! The state machine: which symbol each state decodes to, how many bits it takes, where it goes.
//!
//! All in integers, so that every processor builds the same one.

use crate::model::Table;

/// What a state does when it is decoded, in 32 bits: bits read in the lowest 8, the symbol in the next 8,
/// then the base in 16.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State(u32);

impl State {
    const fn new(symbol: u8, bits: u32, base: u32) -> Self {
        Self(bits | (symbol as u32) << 8 | base << 16)
    }

    /// The symbol that it decodes to.
    pub const fn symbol(self) -> u8 {
        (self.0 >> 8) as u8
    }

    /// Bits read to find the next state.
    pub const fn bits(self) -> u32 {
        self.0 & 0xff
    }

    /// The next state is `base` plus the bits read; a multiple of `2^bits`.
    pub const fn base(self) -> u16 {
        (self.0 >> 16) as u16
    }
}

/// How a symbol is encoded in state `y`, with `x = S + y`, `S` the number of states and `f` the symbol's
/// frequency: its low `n` bits go out, `n = (x + more) >> 16`, and it moves to the state
/// `of_symbol[(x >> n) + offset]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// `(k << 16) - (f << k)` for the larger `k` of the two numbers of bits the symbol takes: the sum reaches
    /// `k << 16` just where `x >> k` reaches `f`.
    pub more: u32,
    /// `c - f`, wrapping.
    pub offset: u32,
}

/// The machine's states field by field, for machines whose states fit into a byte: what vector registers are
/// loaded from. Entries from the number of states on are zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ByteStates {
    /// The symbol that each decodes to.
    pub symbols: [u8; 256],
    /// Bits that each reads.
    pub bits: [u8; 256],
    /// Where each goes, before the bits read.
    pub bases: [u8; 256],
}

impl Default for ByteStates {
    fn default() -> Self {
        Self { symbols: [0; 256], bits: [0; 256], bases: [0; 256] }
    }
}

/// The machine for one frequency table of `2^bits` in all; the alphabet has at most 256 symbols.
#[derive(Debug, Default)]
pub struct Machine {
    /// log2 of the number of states.
    pub bits: u32,
    /// The most bits any state reads.
    pub most_bits: u32,
    /// What each state does.
    pub states: Vec<State>,
    /// For each symbol `s`, from `c[s]` on: the states that decode to it, ascending.
    pub of_symbol: Vec<u16>,
    /// How each symbol is encoded; what has no frequency has no step.
    pub steps: Vec<Step>,
    /// `states` once more, if there are at most 256.
    pub bytes: ByteStates,
    /// Occurrences in spread order.
    spread: Vec<u32>,
    /// Occurrences in each bucket of the spread, then where they begin.
    buckets: Vec<u16>,
}

impl Machine {
    /// Build the machine of `table`.
    ///
    /// Spread: occurrence `i` of a symbol with frequency `f` belongs at `(2 i + 1) / (2 f)` of the way
    /// through the states; states are dealt out in that order, lower symbols first among equals. The
    /// `k`-th state of a symbol stands for `x = f + k` in `[f, 2 f)`; with `S = 2^bits` it reads
    /// `n = bits - floor(log2 x)` bits and goes on to `x * 2^n - S` plus these.
    pub fn set(&mut self, table: &Table) {
        self.bits = table.bits();
        self.spread(table.frequencies());
        self.deal_out(table);
    }

    /// Build the machine of `table`, which was made of `weights`, with a spread that follows these: frequencies are
    /// coarse in a small machine, and the order of the states can say more.
    ///
    /// A symbol of probability `p` would be coded at its entropy from a state at `1 / (p ln(1 + 1/x))` for its
    /// occurrence `x` in `[f, 2 f)` (the tuned spread of J. Duda's toolkit, arXiv:1311.2540). In integers
    /// `1 / ln(1 + 1/x)` is `(12 x^2 + 6 x - 1) / (12 x)`, within 2 % for `x = 1` and 0.1 % from 3 on. States go to
    /// occurrences in ascending order of `(12 x^2 + 6 x - 1) / (x w)` (compared exactly), lower symbols first
    /// among equals; a symbol without a weight counts as `w = 1`.
    pub fn set_tuned(&mut self, table: &Table, weights: &[u32]) {
        self.bits = table.bits();
        let mut places: Vec<(u64, u64, u32)> = Vec::with_capacity(1 << self.bits);
        for (symbol, (&f, &w)) in table.frequencies().iter().zip(weights).enumerate() {
            let f = u64::from(f);
            let occurrences =
                (f..2 * f).map(|x| (12 * x * x + 6 * x - 1, x * u64::from(w.max(1)), symbol as u32));
            places.extend(occurrences);
        }
        // Numerators are below 2^31 and denominators below 2^30: products do not overflow.
        places.sort_by(|a, b| (a.0 * b.1).cmp(&(b.0 * a.1)).then(a.2.cmp(&b.2)));
        self.spread.clear();
        self.spread.extend(places.iter().map(|place| place.2));
        self.deal_out(table);
    }

    /// Give the states to the occurrences in spread order.
    fn deal_out(&mut self, table: &Table) {
        self.states.clear();
        self.of_symbol.clear();
        self.of_symbol.resize(self.spread.len(), 0);
        let mut next = [0_u32; 256];
        for (next, &f) in next.iter_mut().zip(table.frequencies()) {
            *next = u32::from(f);
        }
        self.set_steps(table);
        for (at, &occurrence) in self.spread.iter().enumerate() {
            let symbol = occurrence as u8;
            let x = next[usize::from(symbol)];
            next[usize::from(symbol)] += 1;
            self.of_symbol[x.wrapping_add(self.steps[usize::from(symbol)].offset) as usize] = at as u16;
            let bits = self.bits - x.ilog2();
            self.states.push(State::new(symbol, bits, (x << bits) - (1 << self.bits)));
        }
        if self.states.len() <= 256 {
            self.set_bytes();
        }
    }

    /// The order in which states are dealt out to occurrences, the symbol in the low 8 bits of each.
    ///
    /// Two places `(2 i + 1) / f` and `(2 j + 1) / g` that differ do so by `1 / (f g)` at least, and
    /// `f + g <= 2^12`, so that `f g <= 2^22`: scaled by `2^22` and rounded down they compare as they
    /// are. Occurrences of one symbol lie further apart than the `2^bits` buckets, so buckets are short.
    fn spread(&mut self, frequencies: &[u16]) {
        const SCALE: u32 = 22;
        // Places are below 2.
        let shift = SCALE + 1 - self.bits;
        self.buckets.clear();
        self.buckets.resize((1 << self.bits) + 1, 0);
        for &f in frequencies.iter().filter(|&&f| f > 0) {
            places::<SCALE>(f, |place| self.buckets[(place >> shift) as usize + 1] += 1);
        }
        let mut sum = 0;
        for bucket in &mut self.buckets {
            sum += *bucket;
            *bucket = sum;
        }
        self.spread.clear();
        self.spread.resize(1 << self.bits, 0);
        for (symbol, &f) in frequencies.iter().enumerate().filter(|&(_, &f)| f > 0) {
            places::<SCALE>(f, |place| {
                let to = &mut self.buckets[(place >> shift) as usize];
                self.spread[usize::from(*to)] = place << 8 | symbol as u32;
                *to += 1;
            });
        }
        // Buckets follow each other already.
        for at in 1..self.spread.len() {
            let occurrence = self.spread[at];
            let mut to = at;
            while to > 0 && self.spread[to - 1] > occurrence {
                self.spread[to] = self.spread[to - 1];
                to -= 1;
            }
            self.spread[to] = occurrence;
        }
    }

    fn set_steps(&mut self, table: &Table) {
        let all = 1_u32 << self.bits;
        self.steps.clear();
        self.most_bits = 0;
        for (&f, &c) in table.frequencies().iter().zip(table.cumulative()) {
            let (f, c) = (u32::from(f), u32::from(c));
            if f == 0 {
                self.steps.push(Step::default());
                continue;
            }
            // The largest k with f << k <= 2 S - 1.
            let k = ((2 * all - 1) / f).ilog2();
            self.most_bits = self.most_bits.max(self.bits - f.ilog2());
            self.steps.push(Step { more: (k << 16) - (f << k), offset: c.wrapping_sub(f) });
        }
    }

    fn set_bytes(&mut self) {
        self.bytes = ByteStates::default();
        for (at, state) in self.states.iter().enumerate() {
            self.bytes.symbols[at] = state.symbol();
            self.bytes.bits[at] = state.bits() as u8;
            self.bytes.bases[at] = state.base() as u8;
        }
    }
}

/// Call `each` with `floor((2 i + 1) * 2^SCALE / f)` for `i` from 0 to `f - 1`.
#[inline]
fn places<const SCALE: u32>(f: u16, mut each: impl FnMut(u32)) {
    let f = u32::from(f);
    let (first, step) = ((1 << SCALE) / f, (2 << SCALE) / f);
    let (first_rest, step_rest) = ((1 << SCALE) % f, (2 << SCALE) % f);
    let (mut place, mut rest) = (first, first_rest);
    for _ in 0..f {
        each(place);
        place += step;
        rest += step_rest;
        if rest >= f {
            rest -= f;
            place += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(weights: &[u32], bits: u32) -> (Table, Machine) {
        let (mut table, mut machine) = (Table::default(), Machine::default());
        table.normalize(weights, bits).unwrap();
        machine.set(&table);
        (table, machine)
    }

    fn alphabets() -> Vec<Vec<u32>> {
        let mut alphabets =
            vec![vec![1, 1], vec![900, 5, 0, 70, 1], (1..=40).collect(), vec![0, 1_000_000, 1]];
        alphabets.extend([vec![1; 64], vec![0, 0, 3], vec![7, 11, 13, 17, 19, 23, 29, 31], vec![1, 1, 62]]);
        alphabets
    }

    #[test]
    fn every_state_is_reached_and_leads_to_a_state() {
        for bits in super::super::STATE_BITS {
            for weights in alphabets() {
                let (table, machine) = machine(&weights, bits);
                assert_eq!(machine.states.len(), 1 << bits);
                let mut reached = vec![0; 1 << bits];
                // For each symbol its states lead to every state exactly once.
                for state in &machine.states {
                    for low in 0..1 << state.bits() {
                        reached[usize::from(state.base()) + low] += 1;
                    }
                }
                let symbols = table.frequencies().iter().filter(|&&f| f > 0).count();
                assert!(reached.iter().all(|&n| n == symbols), "{weights:?} at {bits} bits");
                assert_eq!(machine.states.iter().map(|state| state.bits()).max(), Some(machine.most_bits));
            }
        }
    }

    #[test]
    fn states_are_dealt_out_in_the_exact_order_of_the_fractions() {
        for bits in super::super::STATE_BITS {
            let mut all = alphabets();
            all.push((1..=200).filter(|n| n * n % 7 < (1 << bits) / 64).collect());
            all.push((0..256).map(|n| if n < 1 << (bits - 1) { n * n % 31 + 1 } else { 0 }).collect());
            for weights in all.iter().filter(|weights| weights.len() > 1) {
                let (table, machine) = machine(weights, bits);
                let mut occurrences = Vec::new();
                for (symbol, &f) in table.frequencies().iter().enumerate() {
                    occurrences.extend((0..u32::from(f)).map(|i| (2 * i + 1, u32::from(f), symbol as u8)));
                }
                occurrences.sort_by(|a, b| (a.0 * b.1).cmp(&(b.0 * a.1)).then(a.2.cmp(&b.2)));
                let expected: Vec<u8> = occurrences.iter().map(|occurrence| occurrence.2).collect();
                let symbols: Vec<u8> = machine.states.iter().map(|state| state.symbol()).collect();
                assert_eq!(symbols, expected, "{weights:?} at {bits} bits");
            }
        }
    }

    #[test]
    fn a_tuned_spread_is_in_the_exact_order_of_its_fractions_and_a_machine() {
        for bits in super::super::STATE_BITS {
            for weights in alphabets() {
                let (table, plain) = machine(&weights, bits);
                let mut tuned = Machine::default();
                tuned.set_tuned(&table, &weights);
                let mut before = (0_u64, 1_u64, 0);
                let mut next: Vec<u64> = table.frequencies().iter().map(|&f| u64::from(f)).collect();
                let mut reached = vec![0; 1 << bits];
                for state in &tuned.states {
                    let symbol = usize::from(state.symbol());
                    let x = next[symbol];
                    next[symbol] += 1;
                    let place = (12 * x * x + 6 * x - 1, x * u64::from(weights[symbol].max(1)), symbol);
                    let order = (before.0 * place.1).cmp(&(place.0 * before.1)).then(before.2.cmp(&symbol));
                    assert_ne!(order, std::cmp::Ordering::Greater, "{weights:?} at {bits} bits");
                    before = place;
                    for low in 0..1 << state.bits() {
                        reached[usize::from(state.base()) + low] += 1;
                    }
                }
                let symbols = table.frequencies().iter().filter(|&&f| f > 0).count();
                assert!(reached.iter().all(|&n| n == symbols));
                assert_eq!((tuned.most_bits, &tuned.steps), (plain.most_bits, &plain.steps));
            }
        }
    }

    #[test]
    fn a_step_leads_to_the_state_that_decodes_back() {
        for bits in super::super::STATE_BITS {
            for weights in alphabets() {
                let (table, machine) = machine(&weights, bits);
                for symbol in (0..weights.len()).filter(|&s| table.frequencies()[s] > 0) {
                    let step = machine.steps[symbol];
                    for y in 0..1_u32 << bits {
                        let x = y + (1 << bits);
                        let n = (x + step.more) >> 16;
                        let to = machine.of_symbol[(x >> n).wrapping_add(step.offset) as usize];
                        let state = machine.states[usize::from(to)];
                        assert_eq!((usize::from(state.symbol()), state.bits()), (symbol, n));
                        assert_eq!(u32::from(state.base()) + (x & ((1 << n) - 1)), y);
                    }
                }
            }
        }
    }

    #[test]
    fn a_small_machine_is_the_one_worked_out_by_hand() {
        // f = 5, 3 of 8: the places are .1 .3 .5 .7 .9 and 1/6 1/2 5/6; at .5 the lower symbol goes first.
        let (_, machine) = machine(&[5, 3], 3);
        let symbols: Vec<u8> = machine.states.iter().map(|state| state.symbol()).collect();
        assert_eq!(symbols, [0, 1, 0, 0, 1, 0, 1, 0]);
        // x = 5 6 7 8 9 for symbol 0: 1 bit up to 7 (5*2-8, 6*2-8, 7*2-8), none from 8 on.
        let of_zero: Vec<(u32, u16)> =
            machine.states.iter().filter(|s| s.symbol() == 0).map(|s| (s.bits(), s.base())).collect();
        assert_eq!(of_zero, [(1, 2), (1, 4), (1, 6), (0, 0), (0, 1)]);
    }
}
