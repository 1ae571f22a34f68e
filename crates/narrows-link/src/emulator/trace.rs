//! A link whose rate and delay change with time.

use std::{fs, path::Path, time::Duration};

use serde::{Deserialize, Serialize};

use super::check;
use crate::Error;

/// Most steps of a trace.
const MAX_STEPS: usize = 1_000_000;
/// Steps in which [`Trace::drift`] goes one way.
const DRIFT_STEPS: u32 = 32;

/// From a moment on, a rate and a delay.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Seconds since the beginning.
    pub time_s: f64,
    /// The rate in bit/s; 0 is an outage.
    pub rate_bit_s: f64,
    /// The delay in one direction, in milliseconds.
    #[serde(default)]
    pub delay_ms: f64,
}

/// What a link does, second by second. Its last step lasts, unless it repeats.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    /// At least one, the first at 0, in the order of their times.
    steps: Vec<Step>,
    /// After so many seconds it begins again.
    period: Option<f64>,
}

impl Trace {
    /// A trace of these steps. Before the first one holds what it says.
    ///
    /// # Errors
    /// No steps, too many, times that do not rise, or values that are no rates or delays.
    pub fn new(mut steps: Vec<Step>) -> Result<Trace, Error> {
        let count = steps.len() as f64;
        check("number of steps", count, "between 1 and a million", |_| {
            (1..=MAX_STEPS).contains(&steps.len())
        })?;
        let mut last = -1.0;
        for step in &steps {
            check("time of a step in s", step.time_s, "0 or above, and rising", |time| {
                time > last && time >= 0.0
            })?;
            check("rate of a step in bit/s", step.rate_bit_s, "0 or above", |rate| rate >= 0.0)?;
            check("delay of a step in ms", step.delay_ms, "between 0 and an hour", |delay| {
                (0.0..=3.6e6).contains(&delay)
            })?;
            last = step.time_s;
        }
        steps[0].time_s = 0.0;
        Ok(Trace { steps, period: None })
    }

    /// The same, beginning again after `period`.
    ///
    /// # Errors
    /// The period does not end after the last step began.
    pub fn repeating(self, period: Duration) -> Result<Trace, Error> {
        self.with_period(period.as_secs_f64())
    }

    fn with_period(self, period: f64) -> Result<Trace, Error> {
        let last = self.steps[self.steps.len() - 1].time_s;
        check("period of a trace in s", period, "above the time of its last step", |period| period > last)?;
        Ok(Trace { period: Some(period), ..self })
    }

    /// Synthetic: one rate after the other, `each` for so long, again and again.
    ///
    /// # Errors
    /// As of [`new`](Trace::new).
    pub fn steps(rates: &[f64], each: Duration, delay: Duration) -> Result<Trace, Error> {
        let each = each.as_secs_f64();
        let delay_ms = delay.as_secs_f64() * 1e3;
        let step = |(index, &rate_bit_s)| Step { time_s: index as f64 * each, rate_bit_s, delay_ms };
        let steps: Vec<Step> = rates.iter().enumerate().map(step).collect();
        let period = each * steps.len() as f64;
        check("duration of a step in s", each, "above 0", |each| each > 0.0)?;
        Trace::new(steps)?.with_period(period)
    }

    /// Synthetic: a steady rate with an outage of `down` at the end of every `period`.
    ///
    /// # Errors
    /// As of [`new`](Trace::new); or the outage is not shorter than the period.
    pub fn outage(rate: f64, period: Duration, down: Duration, delay: Duration) -> Result<Trace, Error> {
        let delay_ms = delay.as_secs_f64() * 1e3;
        let up = period.as_secs_f64() - down.as_secs_f64();
        check("time without outage in s", up, "above 0", |up| up > 0.0)?;
        Trace::new(vec![
            Step { time_s: 0.0, rate_bit_s: rate, delay_ms },
            Step { time_s: up, rate_bit_s: 0.0, delay_ms },
        ])?
        .repeating(period)
    }

    /// Synthetic: the rate drifts from one value to the other and back within every `period`, in
    /// equal ratios.
    ///
    /// # Errors
    /// As of [`new`](Trace::new); or a rate is 0.
    pub fn drift(from: f64, to: f64, period: Duration, delay: Duration) -> Result<Trace, Error> {
        for rate in [from, to] {
            check("rate in bit/s", rate, "above 0", |rate| rate > 0.0)?;
        }
        let (delay_ms, seconds) = (delay.as_secs_f64() * 1e3, period.as_secs_f64());
        let steps = (0..2 * DRIFT_STEPS).map(|index| {
            let way = f64::from(index.min(2 * DRIFT_STEPS - index)) / f64::from(DRIFT_STEPS);
            let time_s = seconds * f64::from(index) / f64::from(2 * DRIFT_STEPS);
            Step { time_s, rate_bit_s: from * (to / from).powf(way), delay_ms }
        });
        Trace::new(steps.collect())?.repeating(period)
    }

    /// Reads a `.json` file (a list of objects), or CSV: `time_s,rate_bit_s,delay_ms` in each line,
    /// the delay optional, with or without these names in the first line, `#` before a comment.
    ///
    /// # Errors
    /// The file cannot be read, or is no trace.
    pub fn read(path: &Path) -> Result<Trace, Error> {
        let wrong = |cause: String| Error::Setting { what: format!("trace {}", path.display()), cause };
        let text = fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        let is_json = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
        let trace = if is_json { Trace::from_json(&text) } else { Trace::from_csv(&text) };
        trace.map_err(|error| wrong(error.to_string()))
    }

    /// A trace from JSON; see [`read`](Trace::read).
    ///
    /// # Errors
    /// The text is no trace.
    pub fn from_json(text: &str) -> Result<Trace, Error> {
        let steps = serde_json::from_str(text)
            .map_err(|error| Error::Setting { what: "JSON of a trace".into(), cause: error.to_string() })?;
        Trace::new(steps)
    }

    /// A trace from CSV; see [`read`](Trace::read).
    ///
    /// # Errors
    /// The text is no trace.
    pub fn from_csv(text: &str) -> Result<Trace, Error> {
        let mut steps = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') || (steps.is_empty() && line.starts_with("time")) {
                continue;
            }
            let fields: Option<Vec<f64>> = line.split(',').map(|field| field.trim().parse().ok()).collect();
            let (time_s, rate_bit_s, delay_ms) = match fields.as_deref() {
                Some(&[time, rate]) => (time, rate, 0.0),
                Some(&[time, rate, delay]) => (time, rate, delay),
                _ => {
                    let cause = format!("{line:?} is not time_s,rate_bit_s,delay_ms");
                    return Err(Error::Setting { what: format!("line {} of a trace", index + 1), cause });
                }
            };
            steps.push(Step { time_s, rate_bit_s, delay_ms });
        }
        Trace::new(steps)
    }

    /// What holds `at` so long after the beginning.
    pub fn at(&self, at: Duration) -> Step {
        self.steps[self.index(self.wrapped(at.as_secs_f64()))]
    }

    /// When `bytes` that enter at `start` have entered, both since the beginning; `None` is never.
    pub fn sent_by(&self, start: Duration, bytes: u64) -> Option<Duration> {
        let mut bits = bytes as f64 * 8.0;
        let mut now = start.as_secs_f64();
        if self.steps.iter().all(|step| step.rate_bit_s == 0.0) {
            return None;
        }
        loop {
            let (wrapped, index) = (self.wrapped(now), self.index(self.wrapped(now)));
            let rate = self.steps[index].rate_bit_s;
            let end = self.steps.get(index + 1).map(|step| step.time_s).or(self.period);
            let left = end.map_or(f64::INFINITY, |end| end - wrapped);
            if rate == 0.0 && left.is_infinite() {
                return None;
            }
            if bits <= rate * left {
                let seconds = if bits > 0.0 { bits / rate } else { 0.0 };
                return Duration::try_from_secs_f64(now + seconds).ok();
            }
            bits -= rate * left;
            // At least to the next moment that the clock can tell.
            now = (now + left).max(now + 1e-9);
        }
    }

    fn wrapped(&self, seconds: f64) -> f64 {
        self.period.map_or(seconds, |period| seconds % period)
    }

    fn index(&self, seconds: f64) -> usize {
        self.steps.partition_point(|step| step.time_s <= seconds).saturating_sub(1)
    }
}
