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

/// Weights of a new transfer in the forecasts that compete: from one that follows every change to one that sees
/// through noise.
const GAINS: [f64; 3] = [0.9, 0.35, 0.1];
/// Weight of a new error in what a forecast is judged by.
const JUDGED: f64 = 0.15;
/// Errors remembered, and the seconds after which they count for a third.
const ERRORS: usize = 64;
const FORGOTTEN: f64 = 15.0;
/// Width of an error, in ln(bit/s): no link is known better. And its square grows by this much a second of silence.
const WIDTH: f64 = 0.05;
const SILENCE: f64 = 0.05;
/// A transfer of this many resolutions is believed by half: a small frame over a fast link tells of jitter.
const RESOLVED: f64 = 3.0;
/// How much of a rise that is beyond noise is taken over before it is repeated.
const BURST: f64 = 0.3;
/// An error this many times the usual one, and at least so large, is no noise: the link is another one.
const SURPRISE: (f64, f64) = (4.0, 0.25);

/// The rate of a link, in logarithms: links change by factors, and a time is as good as its rate in percent.
///
/// Three averages of different memory forecast each transfer, and the one that erred least of late is believed
/// (as the Network Weather Service does; Wolski 1998). How sure it is follows from its own errors, so that
/// nothing is assumed of how links vary.
#[derive(Clone, Debug, Default)]
pub struct Goodput {
    forecasts: Option<[Forecast; GAINS.len()]>,
    /// When, and the transfer's rate above what was forecast, in ln.
    errors: VecDeque<(f64, f64)>,
    at: f64,
    /// The last transfer was faster beyond noise: one alone may be a burst.
    risen: bool,
    doubtful: bool,
}

#[derive(Clone, Copy, Debug)]
struct Forecast {
    /// ln(bit/s)
    mean: f64,
    /// Its usual error.
    error: f64,
}

/// What a transfer's rate will be.
#[derive(Clone, Debug)]
pub struct Prediction {
    /// ln(bit/s)
    mean: f64,
    /// Errors with their weights, which sum to 1.
    errors: Vec<(f64, f64)>,
    width: f64,
    /// The rate is no more than this, in ln(bit/s).
    bound: f64,
}

impl Goodput {
    /// Record `bytes` that took `seconds` of the link, known to within `resolution` seconds, through at `now`.
    pub fn record(&mut self, now: f64, bytes: u64, seconds: f64, resolution: f64) {
        // A transfer shorter than the clock can tell was at least this fast.
        let seconds = seconds.max(resolution);
        let sample = (bytes as f64 * 8.0 / seconds).max(1.0).ln();
        self.at = now;
        self.doubtful = false;
        let reliability = 1.0 / (1.0 + (RESOLVED * resolution / seconds).powi(2));
        let best = self.best();
        let Some(forecasts) = &mut self.forecasts else {
            self.forecasts = Some(GAINS.map(|_| Forecast { mean: sample, error: WIDTH }));
            return;
        };
        let Forecast { mean, error: usual } = forecasts[best];
        let error = sample - mean;
        if self.errors.len() == ERRORS {
            self.errors.pop_front();
        }
        self.errors.push_back((now, error));
        let surprising = error.abs() > (SURPRISE.0 * usual).max(SURPRISE.1);
        // A fall is believed at once. A rise is believed when the next transfer says the same.
        let believed = surprising && (error < 0.0 || self.risen);
        self.risen = surprising && error > 0.0;
        for (forecast, gain) in forecasts.iter_mut().zip(GAINS) {
            let error = sample - forecast.mean;
            forecast.error += JUDGED * (error.abs() - forecast.error);
            forecast.mean += match (believed, self.risen) {
                (true, _) => reliability * error,
                (false, true) => BURST * reliability * gain * error,
                (false, false) => reliability * gain * error,
            };
        }
    }

    /// What is believed is less sure: something happened that says nothing of the rate.
    pub fn doubt(&mut self) {
        self.doubtful = true;
    }

    /// The forecast of least error.
    fn best(&self) -> usize {
        let error = |index: usize| self.forecasts.map_or(0.0, |forecasts| forecasts[index].error);
        (0..GAINS.len()).min_by(|&a, &b| error(a).total_cmp(&error(b))).unwrap_or(0)
    }

    /// What a transfer's rate will be at `now`; none before the first.
    pub fn predict(&self, now: f64) -> Option<Prediction> {
        let Forecast { mean, error } = self.forecasts?[self.best()];
        let weight = |at: f64| ((at - now) / FORGOTTEN).exp();
        let mut errors: Vec<(f64, f64)> =
            self.errors.iter().map(|&(at, error)| (error, weight(at))).collect();
        // Before there are errors, and after a doubt, the rate may be half or double.
        let unsure = if self.doubtful { 1.0 } else { 0.1 };
        errors.extend([(-2.0_f64.ln(), unsure), (0.0, unsure), (2.0_f64.ln(), unsure)]);
        let total: f64 = errors.iter().map(|(_, weight)| weight).sum();
        errors.iter_mut().for_each(|(_, weight)| *weight /= total);
        let silence = SILENCE * (now - self.at).max(0.0);
        let width = (WIDTH * WIDTH + 0.25 * error * error + silence).sqrt();
        Some(Prediction { mean, errors, width, bound: f64::INFINITY })
    }
}

impl Prediction {
    /// The same for a link that carries no more than `rate` bit/s.
    #[must_use]
    pub fn bounded(self, rate: f64) -> Self {
        Self { bound: rate.ln(), ..self }
    }

    /// The rate that is expected, in bit/s.
    pub fn rate(&self) -> f64 {
        self.mean.min(self.bound).exp()
    }

    /// The probability that the rate is at least `rate` bit/s, which is itself known with a deviation of `spread`
    /// in its logarithm.
    pub fn chance(&self, rate: f64, spread: f64) -> f64 {
        let width = self.width.hypot(spread);
        let needed = rate.ln();
        let above = |error: f64| logistic(((self.mean + error).min(self.bound) - needed) / width);
        self.errors.iter().map(|&(error, weight)| weight * above(error)).sum()
    }
}

/// The logistic distribution with the variance of the normal one, near enough: heavier tails, as links have.
fn logistic(deviations: f64) -> f64 {
    1.0 / (1.0 + (-1.702 * deviations).exp())
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
        goodput.predict(now).unwrap().rate()
    }

    #[test]
    fn a_steady_link_is_known_after_a_few_transfers() {
        let mut goodput = Goodput::default();
        let now = feed(&mut goodput, 0.0, (0..10).map(|i| 100e3 * (1.0 + 0.05 * f64::from(i % 3 - 1))));
        assert!((rate(&goodput, now) / 100e3 - 1.0).abs() < 0.05);
        let prediction = goodput.predict(now).unwrap();
        assert!(prediction.chance(75e3, 0.0) > 0.95 && prediction.chance(130e3, 0.0) < 0.05);
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
        let then = feed(&mut goodput, then, [1e6; 2]);
        assert!(rate(&goodput, then) > 700e3, "{}", rate(&goodput, then));
    }

    #[test]
    fn silence_makes_unsure() {
        let mut goodput = Goodput::default();
        let now = feed(&mut goodput, 0.0, [100e3; 20]);
        let (then, later) = (goodput.predict(now).unwrap(), goodput.predict(now + 30.0).unwrap());
        assert_eq!(then.rate(), later.rate());
        assert!(then.chance(70e3, 0.0) > later.chance(70e3, 0.0) + 0.1);
        assert!(then.chance(150e3, 0.0) < later.chance(150e3, 0.0) - 0.1);
    }

    #[test]
    fn of_a_noisy_link_the_average_is_believed_and_the_noise_is_known() {
        let mut goodput = Goodput::default();
        let noise = [1.5, 0.5, 0.7, 1.9, 1.0, 0.6, 1.3];
        let now = feed(&mut goodput, 0.0, (0..70).map(|i| 100e3 * noise[i % 7]));
        assert!((70e3..130e3).contains(&rate(&goodput, now)), "{}", rate(&goodput, now));
        let prediction = goodput.predict(now).unwrap();
        assert!((0.5..0.9).contains(&prediction.chance(60e3, 0.0)), "{}", prediction.chance(60e3, 0.0));
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
