use std::collections::VecDeque;
use std::time::Duration;

use super::OperatingPoint;
use super::estimate::{Goodput, Prediction, RoundTrip};
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
/// With less of a chance than this, nothing is sent.
const NO_CHANCE: f64 = 0.1;
/// A frame under way for this many deadlines was interrupted: its time says nothing of the rate.
const INTERRUPTED: f64 = 2.0;
/// Frames lost in a row after which the link counts as gone.
const GONE: u32 = 3;
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
    /// Frames lost since the last answer.
    losses: u32,
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
            losses: 0,
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
        let now = now.as_secs_f64();
        self.goodput.predict(now).map(|belief| self.bounded(belief, now).rate())
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
        self.losses = 0;
        if seconds > INTERRUPTED * self.settings.deadline.as_secs_f64() {
            self.goodput.doubt();
        } else {
            let bytes = (sent.bits / 8.0) as u64;
            self.goodput.record(now.as_secs_f64(), bytes, seconds, self.round_trip.resolution());
        }
    }

    /// Frame `id` will not be answered: it was dropped, or the connection is gone. Unknown ids are ignored.
    pub fn lost(&mut self, now: Duration, id: u64) {
        if self.remove(id).is_some() {
            self.through = self.through.max(now.as_secs_f64());
            self.losses = self.losses.saturating_add(1);
            self.goodput.doubt();
        }
    }

    /// A ping on the idle link came back at `now` after `round_trip`.
    pub fn round_trip(&mut self, now: Duration, round_trip: Duration) {
        // One that met an outage says nothing of the distance.
        if round_trip.as_secs_f64() <= INTERRUPTED * self.settings.deadline.as_secs_f64() {
            self.round_trip.record(now, round_trip);
        }
    }

    fn remove(&mut self, id: u64) -> Option<Sent> {
        let index = self.under_way.iter().position(|sent| sent.id == id)?;
        self.under_way.remove(index)
    }

    /// How to send an input that is there at `now`.
    pub fn decide(&mut self, now: Duration) -> Decision {
        let now = now.as_secs_f64();
        let known = self.goodput.predict(now);
        let gone = self.losses >= GONE && self.under_way.is_empty();
        let Some(known) = known.filter(|_| !gone) else { return self.probe(now) };
        let mut worth = self.worths(now, &self.bounded(known.clone(), now));
        if no_chance(&worth) {
            if self.under_way.is_empty() {
                return self.probe(now);
            }
            // Something is stuck. If the link stays away nothing matters; if it comes back it may be as it was.
            worth = self.worths(now, &known);
            if no_chance(&worth) {
                return Decision::Hold;
            }
        }
        let best =
            (0..worth.len()).max_by(|&a, &b| worth[a].0.total_cmp(&worth[b].0)).unwrap_or(self.smallest);
        let chosen = self.steadied(best, &worth);
        self.current = Some(chosen);
        Decision::Send(chosen)
    }

    fn worths(&self, now: f64, belief: &Prediction) -> Vec<(f64, f64)> {
        self.points.iter().map(|point| self.worth(point, now, belief)).collect()
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

    /// `best`, unless staying is as good.
    fn steadied(&self, best: usize, worth: &[(f64, f64)]) -> usize {
        let stays = |&current: &usize| worth[best].0 < worth[current].0 + HYSTERESIS;
        self.current.filter(stays).unwrap_or(best)
    }

    /// A belief that knows how long the oldest frame has been under way.
    fn bounded(&self, belief: Prediction, now: f64) -> Prediction {
        let Some(oldest) = self.under_way.front() else { return belief };
        let elapsed = now - oldest.at.max(self.through) - self.round_trip.expected();
        if elapsed > self.round_trip.resolution() { belief.bounded(oldest.bits / elapsed) } else { belief }
    }

    /// Expected accuracy of a point, and the probability that it is answered in time.
    fn worth(&self, point: &OperatingPoint, now: f64, belief: &Prediction) -> (f64, f64) {
        let fixed = point.device + point.server;
        let left = self.settings.deadline.as_secs_f64()
            - fixed.as_secs_f64()
            - self.round_trip.expected()
            - self.round_trip.resolution();
        if left <= 0.0 {
            return (-self.settings.miss_cost, 0.0);
        }
        let bits = self.queued_bits(now, belief.rate()) + point.bytes * 8.0;
        let chance = belief.chance(bits / left, point.size_spread());
        let cost = self.settings.miss_cost;
        (chance * (point.accuracy + cost) - cost, chance)
    }

    /// Bits of the frames under way that are not through yet, if the link carries `rate`.
    fn queued_bits(&self, now: f64, rate: f64) -> f64 {
        let mut under_way = self.under_way.iter();
        let Some(oldest) = under_way.next() else { return 0.0 };
        let deadline = self.settings.deadline.as_secs_f64();
        let elapsed = (now - oldest.at.max(self.through)).max(0.0);
        // The oldest is on the link; if it is late, nobody knows how much of it is through.
        let left = oldest.bits - rate * elapsed;
        let late = elapsed > oldest.bits / rate + self.round_trip.expected();
        let rest = if late { oldest.bits / 2.0 } else { left };
        // Those behind it are dropped when their time is over.
        let fresh: f64 = under_way.filter(|sent| now - sent.at < deadline).map(|sent| sent.bits).sum();
        (rest + fresh).max(0.0)
    }
}

fn no_chance(worth: &[(f64, f64)]) -> bool {
    worth.iter().all(|&(_, chance)| chance < NO_CHANCE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_millis(100);

    fn points() -> Vec<OperatingPoint> {
        let point = |bytes: f64, accuracy| OperatingPoint {
            bytes,
            bytes_high: 1.2 * bytes,
            accuracy,
            device: Duration::from_millis(5),
            server: Duration::from_millis(1),
        };
        vec![point(1000.0, 93.0), point(250.0, 88.0), point(500.0, 91.0)]
    }

    fn controller() -> Controller {
        Controller::new(points(), Settings::deadline(DEADLINE)).unwrap()
    }

    /// An input each tenth of a second over links of these rates, which carry one frame at a time; the decisions.
    fn drive(controller: &mut Controller, from: u64, rates: impl IntoIterator<Item = f64>) -> Vec<Decision> {
        let mut decisions = Vec::new();
        for (id, rate) in (from..).zip(rates) {
            let now = Duration::from_millis(100 * id);
            let decision = controller.decide(now);
            if let Decision::Send(point) = decision {
                let bytes = controller.points()[point].bytes;
                controller.sent(now, id, bytes as u64);
                let seconds = bytes * 8.0 / rate;
                if seconds < 0.09 {
                    controller.answered(now + Duration::from_secs_f64(seconds), id, Duration::ZERO);
                }
            }
            decisions.push(decision);
        }
        decisions
    }

    #[test]
    fn it_climbs_from_the_smallest_to_what_the_link_carries() {
        let mut controller = controller();
        let decisions = drive(&mut controller, 0, [500e3; 20]);
        assert_eq!(decisions[0], Decision::Send(1));
        assert!(decisions[10..].iter().all(|&decision| decision == Decision::Send(0)), "{decisions:?}");
    }

    #[test]
    fn the_largest_point_that_fits_is_kept_and_none_that_does_not() {
        // 85 ms are left for 500 bytes at 70 kbit/s (57 ms), not for 1,000 (114 ms).
        let decisions = drive(&mut controller(), 0, [70e3; 40]);
        assert!(decisions[20..].iter().all(|&decision| decision == Decision::Send(2)), "{decisions:?}");
    }

    #[test]
    fn a_slower_link_is_noticed_with_the_first_slow_frame() {
        let mut controller = controller();
        drive(&mut controller, 0, [200e3; 30]);
        // 1,000 bytes take 80 ms at 100 kbit/s: late by a little, and at 40 kbit/s far too late.
        controller.sent(Duration::from_secs(3), 30, 1000);
        controller.answered(Duration::from_millis(3180), 30, Duration::ZERO);
        assert_eq!(controller.decide(Duration::from_millis(3200)), Decision::Send(1));
    }

    #[test]
    fn a_frame_without_an_answer_is_evidence() {
        let mut controller = controller();
        drive(&mut controller, 0, [200e3; 30]);
        let believed = controller.rate(Duration::from_secs(3)).unwrap();
        controller.sent(Duration::from_secs(3), 30, 1000);
        let later = controller.rate(Duration::from_millis(3200)).unwrap();
        assert!(later <= 8000.0 / 0.2 + 1.0 && later < believed / 4.0, "{believed} then {later}");
    }

    #[test]
    fn without_a_link_it_probes_with_the_smallest_and_ever_less_often() {
        let mut controller = controller();
        drive(&mut controller, 0, [200e3; 30]);
        let mut probes = Vec::new();
        for id in 30..300 {
            let now = Duration::from_millis(100 * id);
            if let Decision::Send(point) = controller.decide(now) {
                controller.sent(now, id, controller.points()[point].bytes as u64);
                controller.lost(now + DEADLINE / 2, id);
                probes.push(id);
            }
        }
        assert!(probes.len() < 25, "{probes:?}");
        assert!(probes[probes.len() - 1] - probes[probes.len() - 2] >= 20, "{probes:?}");
    }

    #[test]
    fn before_the_first_answer_it_probes() {
        let mut controller = controller();
        let sent: Vec<u64> = (0..100)
            .filter(|&id| {
                let now = Duration::from_millis(100 * id);
                let decision = controller.decide(now);
                if decision == Decision::Send(1) {
                    controller.sent(now, id, 250);
                    controller.lost(now, id);
                }
                decision != Decision::Hold
            })
            .collect();
        let gaps: Vec<u64> = sent.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps[0] <= 2 && gaps.iter().all(|gap| *gap <= 21) && gaps.last() >= Some(&20), "{sent:?}");
    }

    #[test]
    fn a_link_that_comes_back_is_used_as_it_was() {
        let mut controller = controller();
        drive(&mut controller, 0, [500e3; 30]);
        controller.sent(Duration::from_secs(3), 30, 1000);
        for id in 31..50 {
            // Stuck: what is decided is for a link that comes back.
            assert_ne!(controller.decide(Duration::from_millis(100 * id)), Decision::Hold);
        }
        controller.answered(Duration::from_secs(5), 30, Duration::ZERO);
        assert_eq!(controller.decide(Duration::from_millis(5010)), Decision::Send(0));
    }

    #[test]
    fn no_deadline_that_the_device_alone_misses_is_tried() {
        let mut points = points();
        points.iter_mut().for_each(|point| point.device = 2 * DEADLINE);
        let mut controller = Controller::new(points, Settings::deadline(DEADLINE)).unwrap();
        controller.sent(Duration::ZERO, 0, 250);
        controller.answered(Duration::from_millis(1), 0, Duration::ZERO);
        controller.sent(Duration::from_millis(2), 1, 250);
        assert_eq!(controller.decide(Duration::from_millis(10)), Decision::Hold);
    }

    #[test]
    fn the_same_calls_give_the_same_decisions() {
        let rates = || (0..200).map(|n| 100e3 * (1.5 + (f64::from(n) * 0.7).sin()));
        assert_eq!(drive(&mut controller(), 0, rates()), drive(&mut controller(), 0, rates()));
    }

    #[test]
    fn a_caller_that_never_reports_takes_no_memory() {
        let mut controller = controller();
        (0..100_000).for_each(|id| controller.sent(Duration::from_millis(id), id, 250));
        assert!(controller.under_way.len() <= MAX_UNDER_WAY);
    }

    #[test]
    fn settings_out_of_range_are_refused() {
        let settings = Settings::deadline(DEADLINE);
        assert!(Controller::new(Vec::new(), settings).is_err());
        assert!(Controller::new(points(), Settings::deadline(Duration::ZERO)).is_err());
        assert!(Controller::new(points(), Settings { miss_cost: f64::NAN, ..settings }).is_err());
        for wrong in [
            OperatingPoint { bytes: 0.0, ..points()[0] },
            OperatingPoint { bytes_high: 1.0, ..points()[0] },
            OperatingPoint { accuracy: 101.0, ..points()[0] },
        ] {
            assert!(Controller::new(vec![wrong], settings).is_err());
        }
    }
}
