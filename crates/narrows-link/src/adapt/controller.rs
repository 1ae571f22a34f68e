use std::collections::VecDeque;
use std::time::Duration;

use super::OperatingPoint;
use super::estimate::{Goodput, RoundTrip};
use crate::Error;

/// What the controller aims for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// From the input to its answer.
    pub deadline: Duration,
    /// What a missed deadline costs beyond a wrong answer, in percentage points of accuracy: 0 where a late answer
    /// is as bad as a wrong one, more where it is worse.
    pub miss_cost: f64,
}

impl Settings {
    /// Answers within `deadline`; a late one is as bad as a wrong one.
    pub const fn deadline(deadline: Duration) -> Self {
        Self { deadline, miss_cost: 0.0 }
    }
}

/// How to go on with an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Send it at the operating point of this index.
    Send(usize),
    /// Do not send it: no point has a chance to be answered in time.
    Hold,
}

/// A frame that has no answer yet.
#[derive(Clone, Copy, Debug)]
struct Sent {
    id: u64,
    at: f64,
    bits: f64,
}

/// Points of expected accuracy that a switch must gain: less is not worth a change.
const HYSTERESIS: f64 = 0.25;
/// Decisions in a row that must find a larger point better before it is taken.
const PATIENCE: u32 = 2;
/// With less of a chance than this, nothing is sent.
const NO_CHANCE: f64 = 0.1;
/// A frame under way for this many deadlines was interrupted: its time says nothing of the rate.
const INTERRUPTED: f64 = 2.0;
/// The longest time between probes of a link that is gone, in seconds.
const MAX_PROBE_INTERVAL: f64 = 2.0;
/// Frames remembered as under way: a caller that never tells of answers takes no memory.
const MAX_UNDER_WAY: usize = 1024;

/// Picks the operating point for each input.
///
/// Tell it what happens, in the order it happens: [`sent`](Self::sent) when a frame is handed to the link,
/// [`answered`](Self::answered) or [`lost`](Self::lost) once for each, [`round_trip`](Self::round_trip) for each
/// ping on an idle link. Without pings the round trip counts as time of the link, and small frames look slower
/// than they are.
#[derive(Clone, Debug)]
pub struct Controller {
    points: Vec<OperatingPoint>,
    settings: Settings,
    smallest: usize,
    goodput: Goodput,
    round_trip: RoundTrip,
    under_way: VecDeque<Sent>,
    /// When the last answer's frame was through the link.
    through: f64,
    current: Option<usize>,
    /// The larger point that was found better, and how often in a row.
    rising: (usize, u32),
    /// The next frame is a probe.
    cautious: bool,
    probe_interval: f64,
    probed_at: f64,
}

impl Controller {
    /// A controller over these points, in any order.
    ///
    /// # Errors
    /// [`Error::InvalidSetting`] if there is no point, a size or an accuracy is out of range, the deadline is zero,
    /// or the cost of a miss is not a number from 0 up.
    pub fn new(points: Vec<OperatingPoint>, settings: Settings) -> Result<Self, Error> {
        let smallest = (0..points.len()).min_by(|&a, &b| points[a].bytes.total_cmp(&points[b].bytes));
        let invalid = |what, value, expected| Error::InvalidSetting { what, value, expected };
        let smallest = smallest.ok_or(invalid("number of operating points", 0.0, "1 or more"))?;
        points.iter().try_for_each(OperatingPoint::check)?;
        let Settings { deadline, miss_cost } = settings;
        if deadline.is_zero() {
            return Err(invalid("deadline in seconds", 0.0, "above 0"));
        }
        if !(miss_cost.is_finite() && miss_cost >= 0.0) {
            return Err(invalid("cost of a miss in points", miss_cost, "finite and 0 or more"));
        }
        Ok(Self {
            points,
            settings,
            smallest,
            goodput: Goodput::default(),
            round_trip: RoundTrip::default(),
            under_way: VecDeque::new(),
            through: f64::NEG_INFINITY,
            current: None,
            rising: (0, 0),
            cautious: false,
            probe_interval: deadline.as_secs_f64(),
            probed_at: f64::NEG_INFINITY,
        })
    }

    /// The operating points, in the order given.
    pub fn points(&self) -> &[OperatingPoint] {
        &self.points
    }

    /// The rate that is believed at `now`, in bit/s; none before the first answer.
    pub fn rate(&self, now: Duration) -> Option<f64> {
        self.belief(now.as_secs_f64()).map(|(mean, _)| mean.exp())
    }

    /// The frame `id` of `bytes` bytes was handed to the link.
    pub fn sent(&mut self, now: Duration, id: u64, bytes: u64) {
        if self.under_way.len() == MAX_UNDER_WAY {
            self.under_way.pop_front();
        }
        let at = now.as_secs_f64();
        self.under_way.push_back(Sent { id, at, bits: bytes as f64 * 8.0 });
        self.probed_at = at;
    }

    /// The answer to frame `id` came; the server says it took `server` of the time. Unknown ids are ignored.
    pub fn answered(&mut self, now: Duration, id: u64, server: Duration) {
        let Some(sent) = self.remove(id) else { return };
        let through = now.as_secs_f64() - server.as_secs_f64() - self.round_trip.expected();
        // It had the link to itself once the frame before it was through.
        let seconds = through - sent.at.max(self.through);
        self.through = self.through.max(through);
        self.probe_interval = self.settings.deadline.as_secs_f64();
        if seconds > INTERRUPTED * self.settings.deadline.as_secs_f64() {
            self.goodput.doubt();
            self.cautious = true;
        } else {
            let bytes = (sent.bits / 8.0) as u64;
            self.goodput.record(now.as_secs_f64(), bytes, seconds, self.round_trip.resolution());
            self.cautious = false;
        }
    }

    /// Frame `id` will not be answered: it was dropped, or the connection is gone. Unknown ids are ignored.
    pub fn lost(&mut self, now: Duration, id: u64) {
        if self.remove(id).is_some() {
            self.through = self.through.max(now.as_secs_f64());
            self.goodput.doubt();
            self.cautious = true;
        }
    }

    /// A ping on the idle link came back at `now` after `round_trip`.
    pub fn round_trip(&mut self, now: Duration, round_trip: Duration) {
        self.round_trip.record(now, round_trip);
    }

    fn remove(&mut self, id: u64) -> Option<Sent> {
        let index = self.under_way.iter().position(|sent| sent.id == id)?;
        self.under_way.remove(index)
    }

    /// How to send an input that is there at `now`.
    pub fn decide(&mut self, now: Duration) -> Decision {
        let now = now.as_secs_f64();
        let Some(belief) = self.belief(now).filter(|_| !self.cautious) else {
            // Nothing is known: one small frame at a time.
            return if self.under_way.is_empty() { self.probe(now) } else { Decision::Hold };
        };
        let worth: Vec<(f64, f64)> = self.points.iter().map(|point| self.worth(point, now, belief)).collect();
        let best = (0..worth.len()).max_by(|&a, &b| worth[a].0.total_cmp(&worth[b].0)).unwrap_or(0);
        if worth.iter().all(|&(_, chance)| chance < NO_CHANCE) {
            return if self.under_way.is_empty() { self.probe(now) } else { Decision::Hold };
        }
        let chosen = self.steadied(best, &worth);
        self.current = Some(chosen);
        Decision::Send(chosen)
    }

    /// The smallest point, if the last try is long enough ago.
    fn probe(&mut self, now: f64) -> Decision {
        if now - self.probed_at < self.probe_interval {
            return Decision::Hold;
        }
        self.probe_interval = (2.0 * self.probe_interval).min(MAX_PROBE_INTERVAL);
        self.current = Some(self.smallest);
        Decision::Send(self.smallest)
    }

    /// `best`, unless staying is as good or it has not been better for long enough.
    fn steadied(&mut self, best: usize, worth: &[(f64, f64)]) -> usize {
        let Some(current) = self.current else { return best };
        if best == current || worth[best].0 < worth[current].0 + HYSTERESIS {
            self.rising = (current, 0);
            return current;
        }
        if self.points[best].bytes <= self.points[current].bytes {
            self.rising = (best, 0);
            return best;
        }
        let (_, times) = self.rising;
        self.rising = (best, times + 1);
        if times + 1 >= PATIENCE {
            self.rising.1 = 0;
            best
        } else {
            current
        }
    }

    /// Mean and standard deviation of ln(bit/s): what the estimator says, and no more than the frame allows that has
    /// been under way for longest.
    fn belief(&self, now: f64) -> Option<(f64, f64)> {
        let (mean, deviation) = self.goodput.predict(now)?;
        let Some(oldest) = self.under_way.front() else { return Some((mean, deviation)) };
        let elapsed = now - oldest.at.max(self.through) - self.round_trip.expected();
        let bound = if elapsed > self.round_trip.resolution() { (oldest.bits / elapsed).ln() } else { mean };
        Some((mean.min(bound), deviation))
    }

    /// Expected accuracy of a point, and the probability that it is answered in time.
    fn worth(&self, point: &OperatingPoint, now: f64, (mean, deviation): (f64, f64)) -> (f64, f64) {
        let fixed = point.device + point.server;
        let left = self.settings.deadline.as_secs_f64()
            - fixed.as_secs_f64()
            - self.round_trip.expected()
            - self.round_trip.resolution();
        if left <= 0.0 {
            return (-self.settings.miss_cost, 0.0);
        }
        let needed = ((self.queued_bits(now, mean.exp()) + point.bytes * 8.0) / left).ln();
        let spread = (deviation.powi(2) + point.size_spread().powi(2)).sqrt();
        let chance = logistic((mean - needed) / spread);
        let cost = self.settings.miss_cost;
        (chance * (point.accuracy + cost) - cost, chance)
    }

    /// Bits of the frames under way that are not through yet, if the link carries `rate`.
    fn queued_bits(&self, now: f64, rate: f64) -> f64 {
        let bits: f64 = self.under_way.iter().map(|sent| sent.bits).sum();
        let Some(oldest) = self.under_way.front() else { return 0.0 };
        // The last of what is through has its answer on the way still.
        (bits - rate * (now - oldest.at.max(self.through)).max(0.0)).max(0.0)
    }
}

/// The logistic distribution with the variance of the normal one, near enough: heavier tails, as links have.
fn logistic(deviations: f64) -> f64 {
    1.0 / (1.0 + (-1.702 * deviations).exp())
}
