//! The controller beside each fixed setting.

use serde::Serialize;

use super::OnTrace;
use crate::evaluate::adaptation::Outcome;
use crate::failure::Result;
use crate::output::{Align, Output, table};

/// Accuracies and misses that differ by less than this many points count as the same, in the fixed settings' favour.
const SAME: f64 = 0.1;
/// What adaptation must be worth: this part of the misses, or these points of accuracy.
const MISSES: f64 = 0.5;
const POINTS: f64 = 1.0;

/// How a policy did.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Compared {
    /// Requests without an answer in time.
    pub misses_percent: f64,
    /// Right answers among those in time.
    pub accuracy_percent: f64,
    /// Requests with a right answer in time.
    pub useful_percent: f64,
    pub bytes_per_request: f64,
}

impl From<&Outcome> for Compared {
    fn from(outcome: &Outcome) -> Self {
        Self {
            misses_percent: outcome.misses(),
            accuracy_percent: outcome.accuracy(),
            useful_percent: outcome.useful(),
            bytes_per_request: outcome.bytes as f64 / outcome.requests.max(1) as f64,
        }
    }
}

/// Always the same operating point.
#[derive(Debug, Serialize)]
pub struct Fixed {
    pub point: String,
    #[serde(flatten)]
    pub outcome: Compared,
}

/// A fixed setting to compare with.
#[derive(Clone, Debug, Serialize)]
pub struct Rival {
    pub point: String,
    pub misses_percent: f64,
    pub accuracy_percent: f64,
}

/// Whether adaptation is worth it.
#[derive(Debug, Serialize)]
pub struct Verdict {
    /// The fixed setting of fewest misses that is as accurate as the controller.
    pub as_accurate: Option<Rival>,
    /// The controller's misses to that one's.
    pub misses_ratio: Option<f64>,
    /// The most accurate fixed setting that misses no more than the controller.
    pub as_timely: Option<Rival>,
    /// The controller's accuracy above that one's, in points.
    pub accuracy_gain: Option<f64>,
    /// Half the misses at the same accuracy, or a point of accuracy at the same misses.
    pub holds: bool,
}

pub fn verdict(controller: &Compared, fixed: &[Fixed]) -> Verdict {
    let least = |a: &&Fixed, b: &&Fixed| a.outcome.misses_percent.total_cmp(&b.outcome.misses_percent);
    let most = |a: &&Fixed, b: &&Fixed| a.outcome.accuracy_percent.total_cmp(&b.outcome.accuracy_percent);
    let as_accurate =
        fixed.iter().filter(|fixed| fixed.outcome.accuracy_percent >= controller.accuracy_percent - SAME);
    let as_accurate = as_accurate.min_by(least).map(Rival::from);
    let as_timely =
        fixed.iter().filter(|fixed| fixed.outcome.misses_percent <= controller.misses_percent + SAME);
    let as_timely = as_timely.max_by(most).map(Rival::from);
    let misses_ratio = as_accurate
        .as_ref()
        .map(|rival| controller.misses_percent / rival.misses_percent.max(f64::MIN_POSITIVE));
    let accuracy_gain = as_timely.as_ref().map(|rival| controller.accuracy_percent - rival.accuracy_percent);
    // Without a rival on one side, the other side decides.
    let fewer = misses_ratio.is_some_and(|ratio| ratio <= MISSES);
    let better = accuracy_gain.is_some_and(|gain| gain >= POINTS);
    Verdict { as_accurate, misses_ratio, as_timely, accuracy_gain, holds: fewer || better }
}

impl From<&Fixed> for Rival {
    fn from(fixed: &Fixed) -> Self {
        let Compared { misses_percent, accuracy_percent, .. } = fixed.outcome;
        Self { point: fixed.point.clone(), misses_percent, accuracy_percent }
    }
}

pub fn print(results: &[OnTrace], output: &Output) -> Result<()> {
    let right = Align::Right;
    let mut drawn = table(&[
        ("link", Align::Left),
        ("policy", Align::Left),
        ("missed %", right),
        ("accuracy %", right),
        ("right in time %", right),
        ("B/request", right),
    ]);
    for result in results {
        let mut name = result.link.as_str();
        let mut row = |policy: String, compared: &Compared| {
            drawn.add_row([
                std::mem::take(&mut name).to_owned(),
                policy,
                format!("{:.2}", compared.misses_percent),
                format!("{:.2}", compared.accuracy_percent),
                format!("{:.2}", compared.useful_percent),
                format!("{:.0}", compared.bytes_per_request),
            ]);
        };
        row("controller".to_owned(), &result.controller);
        let mut rivals: Vec<&Fixed> = Vec::new();
        let Verdict { as_accurate, as_timely, .. } = &result.verdict;
        for rival in [as_accurate, as_timely].into_iter().flatten() {
            rivals.extend(result.fixed.iter().filter(|fixed| fixed.point == rival.point));
        }
        let useful = |a: &&Fixed, b: &&Fixed| a.outcome.useful_percent.total_cmp(&b.outcome.useful_percent);
        rivals.extend(result.fixed.iter().max_by(useful));
        let mut shown: Vec<&str> = Vec::new();
        for rival in rivals {
            if !shown.contains(&rival.point.as_str()) {
                row(format!("fixed: {}", rival.point), &rival.outcome);
                shown.push(&rival.point);
            }
        }
        row("foresight".to_owned(), &result.foresight);
        drawn.add_row([""]);
    }
    output.print(drawn)?;
    let width = results.iter().map(|result| result.link.len()).max().unwrap_or(0);
    for result in results {
        let Verdict { as_accurate, misses_ratio, as_timely, accuracy_gain, holds } = &result.verdict;
        let misses = match (as_accurate, misses_ratio) {
            (Some(rival), Some(ratio)) => {
                format!("{ratio:.2} of the misses of `{}`, as accurate", rival.point)
            }
            _ => "no fixed setting is as accurate".to_owned(),
        };
        let gain = match (as_timely, accuracy_gain) {
            (Some(rival), Some(gain)) => format!("{gain:+.2} points over `{}`, as timely", rival.point),
            _ => "no fixed setting is as timely".to_owned(),
        };
        let holds = if *holds { "worth it" } else { "not worth it" };
        output.print(format!("{:width$}  {holds}: {misses}; {gain}", result.link))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compared(misses_percent: f64, accuracy_percent: f64) -> Compared {
        Compared { misses_percent, accuracy_percent, useful_percent: 0.0, bytes_per_request: 0.0 }
    }

    fn fixed(misses: f64, accuracy: f64) -> Fixed {
        Fixed { point: format!("{misses}"), outcome: compared(misses, accuracy) }
    }

    #[test]
    fn half_the_misses_or_a_point_of_accuracy_is_worth_it_and_nothing_less() {
        let rivals = [fixed(10.0, 92.0), fixed(3.0, 90.0)];
        assert!(verdict(&compared(5.0, 92.0), &rivals).holds);
        assert!(verdict(&compared(3.0, 91.0), &rivals).holds);
        assert!(!verdict(&compared(6.0, 90.9), &rivals).holds);
        let verdict = verdict(&compared(6.0, 90.9), &rivals);
        assert_eq!(verdict.misses_ratio, Some(0.6));
        assert!((verdict.accuracy_gain.unwrap() - 0.9).abs() < 1e-9);
    }

    #[test]
    fn a_rival_may_be_a_little_worse_and_still_count_as_the_same() {
        let verdict = verdict(&compared(5.0, 92.05), &[fixed(9.0, 92.0)]);
        assert_eq!(verdict.as_accurate.unwrap().misses_percent, 9.0);
        assert!(!verdict.holds && verdict.as_timely.is_none());
    }
}
