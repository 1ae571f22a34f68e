//! Rates of links over time.

use std::f64::consts::{PI, TAU};
use std::path::Path;

use super::random::Random;
use crate::failure::{Failure, Result};

/// Seconds that a rate holds.
const STEP: f64 = 0.02;
/// Links are kept within these factors of their usual rate, outages aside.
const FACTORS: (f64, f64) = (0.05, 20.0);
/// Recorded traces deliver this many bytes at a time (mahimahi's).
const DELIVERY_BYTES: f64 = 1500.0;
/// A transfer that takes longer than this many seconds has no end.
const NEVER: f64 = 600.0;
/// Longer recordings are cut.
const MAX_SECONDS: f64 = 3600.0;

/// How a synthetic link changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Holds a rate for 3 to 12 seconds, then another one
    Steps,
    /// Steady, but for outages of 0.3 to 3 seconds
    Outage,
    /// Wanders slowly
    Drift,
    /// Rayleigh fading as a Markov chain of 8 states
    Fading,
    /// Like a mobile network: shadowing, a busy scheduler, handovers (synthetic)
    LteLike,
}

impl Kind {
    pub const ALL: [Self; 5] = [Self::Steps, Self::Outage, Self::Drift, Self::Fading, Self::LteLike];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Steps => "steps",
            Self::Outage => "outage",
            Self::Drift => "drift",
            Self::Fading => "fading",
            Self::LteLike => "lte-like",
        }
    }
}

/// A link's rate over time. It begins again where it ends.
#[derive(Clone, Debug)]
pub struct Trace {
    pub name: String,
    /// Seconds that each rate holds.
    step: f64,
    /// bit/s; 0 in an outage.
    rates: Vec<f64>,
    /// What it carries within the time after which a transfer has no end.
    most_bits: f64,
}

impl Trace {
    fn new(name: &str, step: f64, rates: Vec<f64>) -> Self {
        let round: f64 = rates.iter().map(|rate| rate * step).sum();
        let most_bits = round * (NEVER / (step * rates.len() as f64) + 1.0);
        Self { name: name.to_owned(), step, rates, most_bits }
    }

    /// A synthetic link of this kind, which usually carries `rate`, for so many seconds.
    pub fn synthetic(kind: Kind, rate: f64, seconds: f64, seed: u64) -> Self {
        let random = &mut Random::new(seed.wrapping_mul(0x51_7cc1).wrapping_add(kind as u64));
        let count = (seconds / STEP).ceil().max(1.0) as usize;
        let factors = match kind {
            Kind::Steps => steps(count, random),
            Kind::Outage => outage(count, random),
            Kind::Drift => wandering(count, 20.0, 0.7, random),
            Kind::Fading => fading(count, random),
            Kind::LteLike => lte_like(count, random),
        };
        let bounded = |factor: f64| if factor > 0.0 { factor.clamp(FACTORS.0, FACTORS.1) } else { 0.0 };
        let rates = factors.into_iter().map(|factor| rate * bounded(factor)).collect();
        Self::new(kind.name(), STEP, rates)
    }

    /// A recorded link in mahimahi's format: on each line the millisecond at which 1,500 bytes could be delivered.
    /// Its rates are multiplied so that the median over 100 ms is `rate`.
    pub fn recorded(path: &Path, rate: f64) -> Result<Self> {
        const RECORDED_STEP: f64 = 0.1;
        let text = std::fs::read_to_string(path).map_err(|error| Failure::io("read", path, &error))?;
        let wrong = |cause: String| {
            Failure::data(format!("{} is no recorded link", path.display()))
                .because(cause)
                .hint("give mahimahi's format: on each line the millisecond of a delivery of 1,500 bytes")
        };
        let mut bits = Vec::new();
        for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let millisecond: u64 =
                line.trim().parse().map_err(|error| wrong(format!("line {}: {error}", index + 1)))?;
            let step = (millisecond as f64 / 1000.0 / RECORDED_STEP) as usize;
            if step as f64 * RECORDED_STEP >= MAX_SECONDS {
                break;
            }
            bits.resize(bits.len().max(step + 1), 0.0);
            bits[step] += DELIVERY_BYTES * 8.0;
        }
        let mut sorted = bits.clone();
        sorted.sort_by(f64::total_cmp);
        let median = sorted.get(sorted.len() / 2).copied().unwrap_or(0.0);
        if median <= 0.0 {
            return Err(wrong("it carries nothing for half of the time".to_owned()));
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let rates = bits.into_iter().map(|bits| bits / median * rate).collect();
        Ok(Self::new(&name, RECORDED_STEP, rates))
    }

    /// Seconds until it begins again.
    pub fn seconds(&self) -> f64 {
        self.step * self.rates.len() as f64
    }

    /// When, and bit/s from there on.
    pub fn points(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        self.rates.iter().enumerate().map(|(index, &rate)| (index as f64 * self.step, rate))
    }

    /// When the last of `bits` bits enters the link, if the first one does at `start` (seconds); infinity if the
    /// trace does not carry them within ten minutes.
    pub fn serialised_at(&self, start: f64, bits: f64) -> f64 {
        if bits > self.most_bits || !start.is_finite() {
            return f64::INFINITY;
        }
        let (mut now, mut left) = (start, bits);
        // By index, so that a step cannot be entered twice by rounding.
        let mut index = (now / self.step) as u64;
        loop {
            let rate = self.rates[(index % self.rates.len() as u64) as usize];
            let end = (index + 1) as f64 * self.step;
            let carried = rate * (end - now).max(0.0);
            if rate > 0.0 && carried >= left {
                return now + left / rate;
            }
            left -= carried;
            now = end;
            if now - start > NEVER {
                return f64::INFINITY;
            }
            index += 1;
        }
    }
}

fn steps(count: usize, random: &mut Random) -> Vec<f64> {
    let mut rates = Vec::with_capacity(count);
    while rates.len() < count {
        let holds = (random.between(3.0, 12.0) / STEP) as usize;
        let factor = random.between(0.15_f64.ln(), 3.0_f64.ln()).exp();
        rates.extend(std::iter::repeat_n(factor, holds));
    }
    rates.truncate(count);
    rates
}

fn outage(count: usize, random: &mut Random) -> Vec<f64> {
    let mut rates: Vec<f64> = wandering(count, 2.0, 0.15, random);
    let mut at = random.exponential(10.0);
    while at < count as f64 * STEP {
        let lasts = random.between(0.3, 3.0);
        let gone = (at / STEP) as usize..((at + lasts) / STEP) as usize;
        rates.iter_mut().skip(gone.start).take(gone.len()).for_each(|rate| *rate = 0.0);
        at += lasts + random.exponential(10.0);
    }
    rates
}

/// The exponential of an Ornstein-Uhlenbeck process: `deviation` of the logarithm, forgotten in `seconds`.
fn wandering(count: usize, seconds: f64, deviation: f64, random: &mut Random) -> Vec<f64> {
    let kept = (-STEP / seconds).exp();
    let added = deviation * (1.0 - kept * kept).sqrt();
    let mut logarithm = deviation * random.normal();
    let mut rates = Vec::with_capacity(count);
    for _ in 0..count {
        rates.push(logarithm.exp());
        logarithm = kept * logarithm + added * random.normal();
    }
    rates
}

/// A finite-state Markov chain of Rayleigh fading (Wang and Moayeri 1995): equally likely ranges of the received power,
/// left to their neighbours as often as the power crosses their bounds; the rate is Shannon's capacity at the
/// middle of the range, 10 dB on average.
fn fading(count: usize, random: &mut Random) -> Vec<f64> {
    const STATES: usize = 8;
    /// Maximum Doppler shift in hertz: a walk.
    const DOPPLER: f64 = 2.0;
    const MEAN_SNR: f64 = 10.0;
    // Power is exponential with mean 1: its quantiles.
    let quantile = |share: f64| -(1.0 - share).ln();
    let crossings = |bound: f64| (TAU * bound).sqrt() * DOPPLER * (-bound).exp();
    let capacity = |power: f64| (1.0 + MEAN_SNR * power).log2();
    let states = STATES as f64;
    let usual = capacity(quantile(0.5));
    let mut state = (random.uniform() * states) as usize;
    let mut rates = Vec::with_capacity(count);
    for _ in 0..count {
        rates.push(capacity(quantile((state as f64 + 0.5) / states)) / usual);
        let leave = |bound: usize| crossings(quantile(bound as f64 / states)) * STEP * states;
        let down = if state > 0 { leave(state) } else { 0.0 };
        let up = if state + 1 < STATES { leave(state + 1) } else { 0.0 };
        let drawn = random.uniform();
        if drawn < down {
            state -= 1;
        } else if drawn < down + up {
            state += 1;
        }
    }
    rates
}

/// Shadowing that is forgotten in 8 seconds, a scheduler that gives more or less every 100 ms, a daily-life
/// handover every 25 seconds, and now and then a burst.
fn lte_like(count: usize, random: &mut Random) -> Vec<f64> {
    const SCHEDULED: usize = 5;
    let mut rates = wandering(count, 8.0, 0.5, random);
    for scheduled in rates.chunks_mut(SCHEDULED) {
        let burst = if random.uniform() < 0.02 { 3.0 } else { 1.0 };
        let given = burst * (0.35 * random.normal() - 0.06).exp();
        scheduled.iter_mut().for_each(|rate| *rate *= given);
    }
    let mut at = random.exponential(25.0);
    while at < count as f64 * STEP {
        let lasts = random.between(0.1, 0.8);
        let (from, steps) = ((at / STEP) as usize, (lasts / STEP) as usize);
        rates.iter_mut().skip(from).take(steps).for_each(|rate| *rate = 0.0);
        at += lasts + random.exponential(25.0);
    }
    // A ripple as of interference from a neighbouring cell.
    let phase = TAU * random.uniform();
    let ripple = |index: usize| 1.0 + 0.15 * (PI * index as f64 * STEP / 3.0 + phase).sin();
    rates.iter_mut().enumerate().for_each(|(index, rate)| *rate *= ripple(index));
    rates
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_take_the_time_of_the_steps_they_cross() {
        let trace = Trace::new("", 0.1, vec![1000.0, 0.0, 500.0]);
        assert!((trace.serialised_at(0.0, 50.0) - 0.05).abs() < 1e-9);
        // 100 bits in the first step, none in the second, 25 in half of the third.
        assert!((trace.serialised_at(0.0, 125.0) - 0.25).abs() < 1e-9);
        // 150 bits a round: ten rounds and 50 bits.
        assert!((trace.serialised_at(0.0, 1550.0) - 3.05).abs() < 1e-6);
        assert_eq!(Trace::new("", 0.1, vec![0.0]).serialised_at(0.0, 1.0), f64::INFINITY);
    }

    #[test]
    fn every_kind_is_the_same_for_the_same_seed_and_carries_about_its_rate() {
        for kind in Kind::ALL {
            let trace = Trace::synthetic(kind, 100e3, 600.0, 7);
            assert_eq!(trace.rates, Trace::synthetic(kind, 100e3, 600.0, 7).rates);
            assert_ne!(trace.rates, Trace::synthetic(kind, 100e3, 600.0, 8).rates);
            let mut sorted = trace.rates.clone();
            sorted.sort_by(f64::total_cmp);
            let median = sorted[sorted.len() / 2];
            assert!((40e3..250e3).contains(&median), "{}: {median}", trace.name);
            assert!(sorted[0] >= 0.0 && sorted.iter().all(|rate| rate.is_finite()));
        }
    }

    #[test]
    fn fading_stays_in_each_state_equally_long() {
        let trace = Trace::synthetic(Kind::Fading, 1.0, 20_000.0, 3);
        let mut rates = trace.rates.clone();
        rates.sort_by(f64::total_cmp);
        rates.dedup();
        assert_eq!(rates.len(), 8);
        for state in rates {
            let share =
                trace.rates.iter().filter(|&&rate| rate == state).count() as f64 / trace.rates.len() as f64;
            assert!((0.09..0.16).contains(&share), "{state}: {share}");
        }
    }
}
