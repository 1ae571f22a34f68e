//! What the link can do, from what it did.

use std::collections::VecDeque;
use std::time::Duration;

/// Pings are remembered this long.
const MEMORY: f64 = 10.0;
/// And no more of them than this, so that a flood of pings takes no memory.
const MAX_PINGS: usize = 64;
/// Weight of a new ping in the averages of what lies above the least round trip.
const PING_GAIN: f64 = 0.25;
/// A clock and a scheduler cannot be trusted below this, in seconds.
const RESOLUTION: f64 = 1e-3;

/// The round trip of an idle link: its floor, and what comes on top.
///
/// The floor is the least of the last ten seconds: queues only ever add, so that the least is nearest to the
/// distance. What comes on top is averaged with its deviation, as a retransmission timer does (RFC 6298).
#[derive(Clone, Debug, Default)]
pub struct RoundTrip {
    /// Ascending in both, so that the first is the least of those remembered.
    least: VecDeque<(f64, f64)>,
    excess: f64,
    deviation: f64,
}

impl RoundTrip {
    /// Record a round trip that ended at `now`.
    pub fn record(&mut self, now: Duration, round_trip: Duration) {
        let (now, seconds) = (now.as_secs_f64(), round_trip.as_secs_f64());
        while self.least.back().is_some_and(|&(_, least)| least >= seconds) || self.least.len() >= MAX_PINGS {
            self.least.pop_back();
        }
        self.least.push_back((now, seconds));
        while self.least.len() > 1 && self.least.front().is_some_and(|&(at, _)| now - at > MEMORY) {
            self.least.pop_front();
        }
        let excess = seconds - self.floor();
        self.deviation += PING_GAIN * ((excess - self.excess).abs() - self.deviation);
        self.excess += PING_GAIN * (excess - self.excess);
    }

    /// The least round trip remembered, in seconds; 0 before the first.
    pub fn floor(&self) -> f64 {
        self.least.front().map_or(0.0, |&(_, least)| least)
    }

    /// What a round trip takes on average, in seconds.
    pub fn expected(&self) -> f64 {
        self.floor() + self.excess
    }

    /// How exactly a duration can be known, in seconds.
    pub fn resolution(&self) -> f64 {
        self.deviation.max(RESOLUTION)
    }
}

/// Spread of a link's rate from one transfer to the next, as a standard deviation of its logarithm: what is left
/// when nothing changes.
const SPREAD: f64 = 0.1;
/// Standard deviation of the logarithm after the first transfer, or one that says little.
const IGNORANCE: f64 = 1.0;
/// Bounds of the volatility, in squared logarithm a second: a link that hardly changes still may, and one that
/// jumps is not all noise.
const VOLATILITY: (f64, f64) = (0.01, 2.0);
/// Weight of a surprise in the volatility.
const VOLATILITY_GAIN: f64 = 0.15;
/// A sample this many standard deviations off is no noise: the link is another one.
const SURPRISE: f64 = 2.0;

/// The rate of a link as a belief: a normal distribution of its logarithm, which each transfer narrows and time
/// widens (a scalar Kalman filter whose process noise follows the surprises).
///
/// The logarithm, because links change by factors, and what is wanted is a time, which is as good as its rate in
/// percent.
#[derive(Clone, Debug)]
pub struct Goodput {
    belief: Option<Belief>,
    volatility: f64,
    /// The last sample was a rise beyond noise: one alone may be a burst.
    risen: bool,
}

#[derive(Clone, Copy, Debug)]
struct Belief {
    /// Of ln(bit/s).
    mean: f64,
    variance: f64,
    /// Seconds.
    at: f64,
}

impl Default for Goodput {
    fn default() -> Self {
        Self { belief: None, volatility: 0.1, risen: false }
    }
}

impl Goodput {
    /// Record `bytes` that took `seconds` of the link, known to within `resolution` seconds, through at `now`.
    pub fn record(&mut self, now: f64, bytes: u64, seconds: f64, resolution: f64) {
        // A transfer shorter than the clock can tell was at least this fast.
        let seconds = seconds.max(resolution);
        let sample = (bytes as f64 * 8.0 / seconds).max(1.0).ln();
        let noise = (resolution / seconds).powi(2) + SPREAD * SPREAD;
        let Some(belief) = self.belief else {
            self.belief = Some(Belief { mean: sample, variance: IGNORANCE * IGNORANCE, at: now });
            return;
        };
        let elapsed = (now - belief.at).max(1e-3);
        let variance = belief.variance + self.volatility * elapsed;
        let error = sample - belief.mean;
        let unexplained = (error * error - belief.variance - noise).max(0.0) / elapsed;
        self.volatility += VOLATILITY_GAIN * (unexplained - self.volatility);
        self.volatility = self.volatility.clamp(VOLATILITY.0, VOLATILITY.1);
        let surprising = error.abs() > SURPRISE * (variance + noise).sqrt();
        // A fall is believed at once. A rise is believed when the next transfer says the same.
        let believed = surprising && (error < 0.0 || self.risen);
        self.risen = surprising && error > 0.0;
        let prior = if believed { variance.max(error * error) } else { variance };
        let gain = prior / (prior + noise);
        self.belief =
            Some(Belief { mean: belief.mean + gain * error, variance: (1.0 - gain) * prior, at: now });
    }

    /// Forget how sure we were: something happened that says nothing of the rate.
    pub fn doubt(&mut self) {
        if let Some(belief) = &mut self.belief {
            belief.variance = belief.variance.max(IGNORANCE * IGNORANCE);
        }
    }

    /// Mean and standard deviation of ln(bit/s) for a transfer at `now`; none before the first.
    pub fn predict(&self, now: f64) -> Option<(f64, f64)> {
        self.belief.map(|belief| {
            let aged = self.volatility * (now - belief.at).max(0.0);
            (belief.mean, (belief.variance + aged + SPREAD * SPREAD).sqrt())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame each tenth of a second over a link of this rate.
    fn feed(goodput: &mut Goodput, from: f64, rates: impl IntoIterator<Item = f64>) -> f64 {
        let mut now = from;
        for rate in rates {
            now += 0.1;
            goodput.record(now, 500, 4000.0 / rate, 1e-3);
        }
        now
    }

    fn rate(goodput: &Goodput, now: f64) -> f64 {
        goodput.predict(now).unwrap().0.exp()
    }

    #[test]
    fn a_steady_link_is_known_after_a_few_transfers() {
        let mut goodput = Goodput::default();
        let now = feed(&mut goodput, 0.0, (0..10).map(|i| 100e3 * (1.0 + 0.05 * f64::from(i % 3 - 1))));
        assert!((rate(&goodput, now) / 100e3 - 1.0).abs() < 0.05);
        assert!(goodput.predict(now).unwrap().1 < 0.2);
    }

    #[test]
    fn a_fall_is_believed_at_once_and_a_rise_when_it_is_repeated() {
        let mut goodput = Goodput::default();
        let now = feed(&mut goodput, 0.0, [100e3; 20]);
        let mut fallen = goodput.clone();
        let then = feed(&mut fallen, now, [20e3]);
        assert!(rate(&fallen, then) < 25e3, "{}", rate(&fallen, then));
        let then = feed(&mut goodput, now, [1e6]);
        let once = rate(&goodput, then);
        assert!(once < 400e3, "{once}");
        let then = feed(&mut goodput, then, [1e6]);
        assert!(rate(&goodput, then) > 700e3, "{}", rate(&goodput, then));
    }

    #[test]
    fn silence_makes_unsure() {
        let mut goodput = Goodput::default();
        let now = feed(&mut goodput, 0.0, [100e3; 20]);
        let (mean, deviation) = goodput.predict(now).unwrap();
        let (later_mean, later_deviation) = goodput.predict(now + 30.0).unwrap();
        assert_eq!(mean, later_mean);
        assert!(later_deviation > 2.0 * deviation);
    }

    #[test]
    fn a_transfer_below_the_clocks_resolution_is_at_least_so_fast() {
        let mut goodput = Goodput::default();
        goodput.record(1.0, 250, 0.0, 0.01);
        assert!((rate(&goodput, 1.0) - 2000.0 / 0.01).abs() < 1.0);
    }

    #[test]
    fn the_floor_of_the_round_trip_forgets_what_is_old() {
        let mut round_trip = RoundTrip::default();
        let second = Duration::from_secs;
        let milliseconds = Duration::from_millis;
        round_trip.record(second(0), milliseconds(20));
        for at in 1..8 {
            round_trip.record(second(at), milliseconds(50));
        }
        assert_eq!(round_trip.floor(), 0.02);
        assert!(round_trip.expected() > 0.04);
        for at in 8..20 {
            round_trip.record(second(at), milliseconds(50));
        }
        assert_eq!(round_trip.floor(), 0.05);
    }

    #[test]
    fn a_flood_of_pings_takes_no_memory() {
        let mut round_trip = RoundTrip::default();
        for n in 0..100_000 {
            round_trip.record(Duration::from_micros(n), Duration::from_micros(20_000 + n));
        }
        assert!(round_trip.least.len() <= MAX_PINGS);
        assert_eq!(round_trip.floor(), 0.02);
    }
}
