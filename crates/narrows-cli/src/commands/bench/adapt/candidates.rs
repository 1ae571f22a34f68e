//! The operating points to choose from, and the inputs that are sent.

use std::time::Duration;

use crate::evaluate::adaptation::{Random, Workload};
use crate::evaluate::{
    Dataset, Half, Outcome, Row, Samples, Table, demo_model, measure_operating_points, timed,
};
use crate::failure::{Failure, Result};
use crate::output::Output;

/// Operating points with the times of device and server, and inputs.
pub struct Candidates {
    pub names: Vec<String>,
    pub workload: Workload,
}

/// Sizes drawn for a table from a file.
const DRAWN: usize = 400;
/// Standard deviations from the mean to the value that one in twenty exceeds.
const ONE_IN_TWENTY: f64 = 1.645;

impl Candidates {
    /// The demo network on the images that the program carries. The controller knows the points by one half of the
    /// measured images, and the other half is sent.
    pub fn of_demo(cut: &str, slowdown: f64, output: &Output) -> Result<Self> {
        let split = narrows_split::split(&demo_model()?, cut)
            .map_err(|error| Failure::model(format!("cannot split the demo network at `{cut}`"), &error))?;
        let (head, tail) = (Half::head(&split.head, cut)?, Half::tail(&split.tail, cut)?);
        let dataset = Dataset::embedded()?;
        let (mut features, mut labels, mut times) = (Vec::new(), Vec::new(), Samples::default());
        for (image, label) in dataset.iter() {
            let (result, time) = timed(|| head.run(&image));
            features.push(result.map_err(|error| Failure::model("cannot run the head", &error))?);
            times.record(time);
            labels.push(u32::from(label));
        }
        let progress = output.progress(1, "measuring");
        let mut outcome = measure_operating_points(&tail, &features, &labels, None, &progress)?;
        progress.finish_and_clear();
        let sent = outcome.halve();
        let chosen = outcome.table.choosable();
        let details = |index: &usize| &sent[*index];
        let workload = Workload {
            points: points(&outcome, &chosen, Duration::from_secs_f64(times.median_us() / 1e6), slowdown),
            bytes: chosen.iter().map(|index| details(index).bytes.clone()).collect(),
            right: (chosen
                .iter()
                .map(|index| details(index).right.iter().map(|&right| f64::from(right)).collect()))
            .collect(),
        };
        Ok(Self { names: names(&outcome.table, &chosen), workload })
    }

    /// The points of a file; sizes are drawn around their means, and answers are right as often as measured.
    pub fn of_table(table: &Table, slowdown: f64) -> Self {
        let chosen = table.choosable();
        let mut random = Random::new(1);
        let normal: Vec<f64> = (0..DRAWN).map(|_| random.normal()).collect();
        let sizes = |index: &usize| {
            let Row { bytes_mean, bytes_high, .. } = table.points[*index];
            let spread = (f64::from(bytes_high) / bytes_mean).ln().max(0.0) / ONE_IN_TWENTY;
            normal.iter().map(|normal| (bytes_mean * (spread * normal).exp()).max(1.0) as u32).collect()
        };
        // The file does not know the head; its time is the device's own and the same for all.
        let tail = Duration::from_secs_f64(table.tail_us.max(0.0) / 1e6);
        let point = |index: &usize| table.points[*index].operating_point(Duration::ZERO, tail, slowdown);
        let workload = Workload {
            points: chosen.iter().map(point).collect(),
            bytes: chosen.iter().map(sizes).collect(),
            right: chosen.iter().map(|index| vec![table.points[*index].top1_percent / 100.0]).collect(),
        };
        Self { names: names(table, &chosen), workload }
    }
}

fn points(
    outcome: &Outcome,
    chosen: &[usize],
    head: Duration,
    slowdown: f64,
) -> Vec<narrows_link::adapt::OperatingPoint> {
    let tail = Duration::from_secs_f64(outcome.table.tail_us / 1e6);
    chosen.iter().map(|&index| outcome.table.points[index].operating_point(head, tail, slowdown)).collect()
}

fn names(table: &Table, chosen: &[usize]) -> Vec<String> {
    chosen.iter().map(|&index| table.points[index].name()).collect()
}
