//! Which machine a tensor is coded with: how many states, which bins it has, and what is left to the list of outliers.
//!
//! A machine of few states cannot give a rare symbol a small enough probability: the rarest it can give is about
//! `1 / (2 S ln 2)`. Those below are taken out of the stream (a zero is coded in their place) and listed.

use narrows::machine::{
    BitWriter, Machine, STATE_BITS, Scale, Table, mantissa_bits, weight, width_of, write_weights,
};

use crate::contexts;
use crate::encode::lanes_for;
use crate::grid::entropy;
use crate::outliers;

/// Precision of the weights that a machine's spread follows.
pub(crate) const WEIGHT_BITS: u32 = 14;
/// More states are taken only if they save more than this share.
const WORTH_IT: f64 = 0.0015;
/// A stream of rANS is taken where it saves more than this share: products decode it at half the speed.
const WORTH_RANS: f64 = 0.003;
/// What rANS loses to the entropy with frequencies of 14 bits, the share of its chunks not counted.
const RANS_LOSS: f64 = 0.0005;
/// Bits of an entry of its table, about.
const RANS_ENTRY_BITS: f64 = 4.0;
/// Bytes of payload from which on rANS is looked at: below, products would wait for its few lanes.
const LEAST_RANS: f64 = 16384.0;
/// Symbols up to which tables with fewer mantissa bits are tried: they are a part of what so small tensors take.
const SMALL: u64 = 1 << 17;

/// How tensors are coded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum States {
    /// 64, 128 or 256 states: tables that vector registers hold.
    #[default]
    Registers,
    /// Just so many, `2^6` to `2^12`.
    Exactly(u32),
    /// Whatever is smallest, up to 4,096.
    Smallest,
}

impl States {
    fn candidates(self) -> std::ops::RangeInclusive<u32> {
        match self {
            Self::Registers => 6..=8,
            Self::Exactly(bits) => bits..=bits,
            Self::Smallest => STATE_BITS,
        }
    }
}

/// What a tensor's stream is coded with.
#[derive(Debug)]
pub(crate) struct Choice {
    pub(crate) state_bits: u32,
    /// A weight for each bin, context by context; bins without are outliers.
    pub(crate) weights: Vec<u32>,
    pub(crate) contexts: usize,
    pub(crate) mantissa: u32,
    /// Bits it will take, about: first states, stream, outliers and table.
    pub(crate) bits: f64,
}

/// The best machine for bins counted so, or `None` where a stream is better: of rANS by much, or of bins as they are. At least two
/// bins occur.
pub(crate) fn choose(counts: &[u64], states: States) -> Option<Choice> {
    let best = best_of(&[counts], states.candidates());
    let forced = matches!(states, States::Exactly(_));
    let rans = rans_bits(counts).unwrap_or(f64::INFINITY);
    let is_best = |best: &Choice| best.bits <= plain_bits(counts) && best.bits * (1.0 - WORTH_RANS) <= rans;
    best.filter(|best| forced || is_best(best))
}

/// Bits of a stream that is not coded: what a few weights on many bins are smallest as, since it has no table.
fn plain_bits(counts: &[u64]) -> f64 {
    let form = 8.0;
    form + counts.iter().sum::<u64>() as f64 * f64::from(width_of(counts.len()))
}

/// Bits of streams of rANS, about; none where they are not to be had.
fn rans_bits(counts: &[u64]) -> Option<f64> {
    let bits = entropy(counts) * counts.iter().sum::<u64>() as f64 * (1.0 + RANS_LOSS);
    let present = counts.iter().filter(|&&n| n > 0).count() as f64;
    let streams = counts.iter().sum::<u64>().div_ceil(STREAM_SYMBOLS as u64) as f64;
    let chunks = streams * rans_chunks(bits / 8.0 / streams) as f64;
    let all = bits + streams * present * RANS_ENTRY_BITS + chunks * 8.0 * RANS_CHUNK_BYTES;
    (bits >= 8.0 * LEAST_RANS).then_some(all)
}

/// Symbols of a stream of rANS, at least, where a tensor has so many: it carries a table.
pub(crate) const STREAM_SYMBOLS: usize = 1 << 18;
/// Bytes that a chunk of rANS costs: 32 lanes, and its length.
const RANS_CHUNK_BYTES: f64 = 100.0;
/// The share of a stream that its chunks may cost.
const RANS_OVERHEAD: f64 = 0.0035;

/// Chunks of a stream of rANS of so many bytes: four, two or one decode side by side.
pub(crate) fn rans_chunks(bytes: f64) -> usize {
    match (bytes * RANS_OVERHEAD / RANS_CHUNK_BYTES) as usize {
        0..2 => 1,
        2..4 => 2,
        _ => 4,
    }
}

/// The best pair of machines for bins counted so in two contexts.
pub(crate) fn choose_contexts(counts: [&[u64]; 2]) -> Option<Choice> {
    best_of(&counts, 6..=contexts::MOST_STATE_BITS)
}

fn best_of(counts: &[&[u64]], candidates: std::ops::RangeInclusive<u32>) -> Option<Choice> {
    let mut best: Option<Candidate> = None;
    for state_bits in candidates {
        let Some(found) = with_states(counts, state_bits) else { continue };
        if best.as_ref().is_none_or(|best| found.choice.bits < best.choice.bits * (1.0 - WORTH_IT)) {
            best = Some(found);
        }
    }
    let Candidate { mut choice, kept, outliers } = best?;
    let few = kept.iter().flatten().sum::<u64>() <= SMALL;
    let fewer = if few { choice.mantissa.saturating_sub(2)..choice.mantissa } else { 0..0 };
    for mantissa in fewer {
        let coarser = with_mantissa(&kept, choice.state_bits, mantissa, outliers);
        if let Some(coarser) = coarser.filter(|coarser| coarser.bits < choice.bits) {
            choice = coarser;
        }
    }
    Some(choice)
}

/// A choice, and what it was made of: symbols that are coded, counted by context, and bits of the list of the others.
struct Candidate {
    choice: Choice,
    kept: Vec<Vec<u64>>,
    outliers: f64,
}

/// The best machines of `2^state_bits` states, one for each context.
fn with_states(contexts: &[&[u64]], state_bits: u32) -> Option<Candidate> {
    let counts: Vec<u64> =
        (0..contexts[0].len()).map(|bin| contexts.iter().map(|counts| counts[bin]).sum()).collect();
    let counts = counts.as_slice();
    let total: u64 = counts.iter().sum();
    let zero = counts.len() / 2;
    let states = 1_u64 << state_bits;
    let mut best: Option<Candidate> = None;
    let mut tried = usize::MAX;
    for divisor in [u64::MAX, 64, 32, 16, 8, 6, 4, 3, 2, 1] {
        let least = if divisor == u64::MAX { 1 } else { (total / (states * divisor)).max(1) };
        let keeps = |bin: usize| bin == zero || counts[bin] >= least;
        let all_listed: u64 = (0..counts.len()).filter(|&bin| !keeps(bin)).map(|bin| counts[bin]).sum();
        let occurs = |bin: usize| keeps(bin) && (counts[bin] > 0 || (bin == zero && all_listed > 0));
        let present = (0..counts.len()).filter(|&bin| occurs(bin)).count();
        if present == tried || present > 1 << (state_bits - 1) {
            continue;
        }
        tried = present;
        let of_context = |context: &&[u64]| {
            let listed: u64 = (0..counts.len()).filter(|&bin| !keeps(bin)).map(|bin| context[bin]).sum();
            // What occurs in one context can be coded in both.
            let other = u64::from(contexts.len() > 1);
            let kept = |(bin, &n): (usize, &u64)| {
                let n = if bin == zero { n + listed } else { n };
                if occurs(bin) { n.max(other) } else { 0 }
            };
            context.iter().enumerate().map(kept).collect::<Vec<u64>>()
        };
        let kept: Vec<Vec<u64>> = contexts.iter().map(of_context).collect();
        let symbols = usize::try_from(total.min(1 << 30)).expect("bounded") / contexts.len();
        let listed: Vec<u64> =
            (0..counts.len()).map(|bin| if keeps(bin) { 0 } else { counts[bin] }).collect();
        let (mantissa, outliers) = (mantissa_bits(symbols, present), outliers::bits(&listed, total));
        let Some(choice) = with_mantissa(&kept, state_bits, mantissa, outliers) else { continue };
        if best.as_ref().is_none_or(|best| choice.bits < best.choice.bits) {
            best = Some(Candidate { choice, kept, outliers });
        }
    }
    best
}

/// Machines of `2^state_bits` states for symbols counted so in each context, from weights of so many mantissa bits.
fn with_mantissa(kept: &[Vec<u64>], state_bits: u32, mantissa: u32, outliers: f64) -> Option<Choice> {
    let (mut weights, mut bits) = (Vec::new(), outliers);
    for counts in kept {
        let own = weights_of(counts, mantissa);
        bits += machine_bits(&machine(&own, state_bits)?, counts);
        weights.extend(own);
    }
    bits += (lanes_for(bits / 8.0, state_bits) * state_bits as usize) as f64;
    let mut table = Vec::new();
    let mut writer = BitWriter::new(&mut table);
    write_weights(&weights, kept.len(), Scale { bits: WEIGHT_BITS, mantissa }, &mut writer);
    writer.finish();
    bits += 8.0 * table.len() as f64;
    Some(Choice { state_bits, weights, contexts: kept.len(), mantissa, bits })
}

fn weights_of(counts: &[u64], mantissa: u32) -> Vec<u32> {
    // Counts are scaled down to 32 bits, which is finer than any weight.
    let total: u64 = counts.iter().sum();
    let shift = (64 - total.leading_zeros()).saturating_sub(30);
    let scaled = |n: u64| if n == 0 { 0 } else { ((n >> shift) as u32).max(1) };
    let sum = counts.iter().map(|&n| u64::from(scaled(n))).sum();
    counts.iter().map(|&n| weight(scaled(n), sum, Scale { bits: WEIGHT_BITS, mantissa })).collect()
}

/// The machines of all contexts, as [`machine`] builds each.
pub(crate) fn machines(weights: &[u32], contexts: usize, state_bits: u32) -> Option<Vec<Machine>> {
    weights.chunks_exact(weights.len() / contexts).map(|weights| machine(weights, state_bits)).collect()
}

/// The machine of these weights, built as every reader builds it.
pub(crate) fn machine(weights: &[u32], state_bits: u32) -> Option<Machine> {
    let (mut table, mut machine) = (Table::default(), Machine::default());
    table.normalize(weights, state_bits).ok()?;
    machine.set_tuned(&table, weights);
    Some(machine)
}

/// Bits that the machine takes for symbols counted so and in no order: its rate in the stationary distribution of its
/// states.
fn machine_bits(machine: &Machine, counts: &[u64]) -> f64 {
    const ROUNDS: usize = 48;
    const MOST_WORK: usize = 1 << 24;
    let total = counts.iter().sum::<u64>() as f64;
    let states = machine.states.len();
    let present: Vec<(usize, f64)> =
        counts.iter().enumerate().filter(|(_, n)| **n > 0).map(|(s, &n)| (s, n as f64 / total)).collect();
    let mut moves = Vec::with_capacity(states * present.len());
    for y in 0..states {
        for &(symbol, p) in &present {
            let (x, step) = ((y + states) as u32, machine.steps[symbol]);
            let n = (x + step.more) >> 16;
            let to = machine.of_symbol[(x >> n).wrapping_add(step.offset) as usize];
            moves.push((y, usize::from(to), p, p * f64::from(n)));
        }
    }
    let rounds = (MOST_WORK / moves.len().max(1)).clamp(8, ROUNDS);
    let mut shares = vec![1.0 / states as f64; states];
    let mut rate = 0.0;
    for _ in 0..rounds {
        let mut next = vec![0.0; states];
        rate = 0.0;
        for &(from, to, p, bits) in &moves {
            next[to] += shares[from] * p;
            rate += shares[from] * bits;
        }
        // Half a step at a time, or a machine that swings between two halves would never settle.
        shares.iter_mut().zip(next).for_each(|(share, next)| *share = f64::midpoint(*share, next));
    }
    rate * total
}
