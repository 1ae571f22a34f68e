//! `narrows bench adapt`: the controller against fixed settings, on links that change.

mod candidates;
mod chart;
mod compare;

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::RangedU64ValueParser;
use narrows_link::adapt::{Controller, Settings};
use narrows_link::emulator::Link;
use serde::Serialize;

use crate::destination::{Destination, Existing};
use crate::evaluate::adaptation::{Kind, Outcome, Policy, Record, Scenario, Trace, simulate};
use crate::evaluate::{Table, parse_factor, parse_rate, parse_time, rate_in_words, reference_rate};
use crate::failure::{Failure, Result};
use crate::output::{Output, counted};
use candidates::Candidates;
use compare::{Compared, Fixed};

const EXAMPLES: &str = "\
Examples:
  narrows bench adapt --svg adapt.svg
  narrows bench adapt --cut layer1 --deadline 300ms --period 200ms
  narrows bench adapt --table cut/operating-points.json --trace uplink.mahimahi
  narrows bench adapt --json | jq '.traces[].verdict'";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Where to cut the demo network
    #[arg(long, value_name = "TENSOR", default_value = "layer2")]
    cut: String,
    /// Take the operating points from this file (of `narrows calibrate --labels`) instead of measuring the demo network
    #[arg(long, value_name = "FILE", conflicts_with = "cut")]
    table: Option<PathBuf>,
    /// The links [default: all]
    #[arg(long, value_name = "KINDS", value_enum, value_delimiter = ',')]
    links: Vec<Kind>,
    /// And a recorded one, in mahimahi's format, brought to the usual rate
    #[arg(long, value_name = "FILE")]
    trace: Vec<PathBuf>,
    /// What the links usually carry, in bit/s [default: the reference work's 143.6k]
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    rate: Option<f64>,
    /// From an input to its answer
    #[arg(long, value_name = "TIME", default_value = "150ms", value_parser = parse_time)]
    deadline: Duration,
    /// From one input to the next
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = parse_time)]
    period: Duration,
    /// There and back, for no bytes at all
    #[arg(long, value_name = "TIME", default_value = "40ms", value_parser = parse_time)]
    round_trip: Duration,
    /// Further delay in each direction, up to this
    #[arg(long, value_name = "TIME", default_value = "5ms", value_parser = parse_time)]
    jitter: Duration,
    /// How many times slower than this machine the device is
    #[arg(long, value_name = "FACTOR", default_value_t = 10.0, value_parser = parse_factor)]
    device_slowdown: f64,
    /// Seconds of each link
    #[arg(long, value_name = "N", default_value_t = 120, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// Links of each kind
    #[arg(long, value_name = "N", default_value = "20", value_parser = RangedU64ValueParser::<u64>::new().range(1..=1000))]
    seeds: u64,
    /// The first one's seed; the controller was tuned on 1 to 20
    #[arg(long, value_name = "N", default_value_t = 1001)]
    first_seed: u64,
    /// Draw misses against accuracy, and what happens on one link of each kind
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Replace the drawing if it is there already
    #[arg(long, short)]
    force: bool,
}

/// An hour of it is a few million requests.
const LEAST_PERIOD: Duration = Duration::from_millis(1);

/// One kind of link, over all seeds.
#[derive(Serialize)]
struct OnTrace {
    link: String,
    links: usize,
    requests: usize,
    controller: Compared,
    /// Knows the future: nobody can do much better.
    foresight: Compared,
    fixed: Vec<Fixed>,
    verdict: compare::Verdict,
    /// The first link, as the controller took it.
    #[serde(skip)]
    shown: (Trace, Vec<Record>),
}

pub fn run(args: &Args, output: &Output) -> Result<()> {
    let drawing = args.svg.as_deref().map(Destination::from);
    if let Some(drawing) = &drawing {
        drawing.check(Existing::replace_if(args.force))?;
    }
    let rate = args.rate.map_or_else(reference_rate, Ok)?;
    if args.period < LEAST_PERIOD {
        return Err(Failure::usage(format!("a period of {:?} is below {LEAST_PERIOD:?}", args.period)));
    }
    let recorded = args.trace.iter().map(|path| Trace::recorded(path, rate)).collect::<Result<Vec<_>>>()?;
    let candidates = match &args.table {
        Some(path) => Candidates::of_table(&Table::read(path)?, args.device_slowdown),
        None => Candidates::of_demo(&args.cut, args.device_slowdown, output)?,
    };
    let settings = Settings::deadline(args.deadline);
    let points = candidates.workload.points.clone();
    let controller = Controller::new(points, settings)
        .map_err(|error| Failure::link("cannot set up the controller", &error))?;
    let kinds: &[Kind] = if args.links.is_empty() { &Kind::ALL } else { &args.links };
    let progress = output.progress((kinds.len() + recorded.len()) as u64, "simulating");
    let mut results = Vec::new();
    for &kind in kinds {
        let seeds = args.first_seed..args.first_seed.saturating_add(args.seeds);
        let traces: Vec<_> =
            seeds.map(|seed| Trace::synthetic(kind, rate, f64::from(args.seconds), seed)).collect();
        results.push(args.on_traces(traces, &candidates, &controller));
        progress.inc(1);
    }
    for trace in recorded {
        results.push(args.on_traces(vec![trace], &candidates, &controller));
        progress.inc(1);
    }
    progress.finish_and_clear();
    if let Some(drawing) = &drawing {
        drawing.write(chart::draw(&results, &candidates).as_bytes())?;
    }
    if output.is_json() {
        return output.print_json(&serde_json::json!({
            "points": candidates.names, "rate_bits_per_second": rate,
            "deadline_ms": args.deadline.as_secs_f64() * 1e3, "period_ms": args.period.as_secs_f64() * 1e3,
            "first_seed": args.first_seed, "seeds": args.seeds, "traces": results,
        }));
    }
    output.print(format!(
        "{}, deadline {:?}, an input every {:?}, links of usually {}, {} each\n",
        counted(candidates.names.len(), "operating point"),
        args.deadline,
        args.period,
        rate_in_words(rate),
        counted(args.seeds as usize, "seed"),
    ))?;
    compare::print(&results, output)?;
    if let Some(drawing) = drawing {
        output.note(format!("\n{drawing}: misses against accuracy, drawn"));
    }
    Ok(())
}

impl Args {
    /// Every policy over links of one kind.
    fn on_traces(&self, traces: Vec<Trace>, candidates: &Candidates, controller: &Controller) -> OnTrace {
        let workload = &candidates.workload;
        let count = workload.points.len();
        let mut fixed = vec![Outcome::default(); count];
        let (mut adaptive, mut foresight) = (Outcome::default(), Outcome::default());
        let mut shown = Vec::new();
        for (index, trace) in traces.iter().enumerate() {
            let scenario = self.scenario(trace, index as u64);
            for (point, outcome) in fixed.iter_mut().enumerate() {
                outcome.add(&simulate(trace, &scenario, workload, Policy::Fixed(point)));
            }
            foresight.add(&simulate(trace, &scenario, workload, Policy::Foresight));
            let outcome =
                simulate(trace, &scenario, workload, Policy::Adaptive(Box::new(controller.clone())));
            adaptive.add(&outcome);
            if index == 0 {
                shown = outcome.records;
            }
        }
        let fixed: Vec<Fixed> = (candidates.names.iter().zip(&fixed))
            .map(|(name, outcome)| Fixed { point: name.clone(), outcome: outcome.into() })
            .collect();
        let controller = Compared::from(&adaptive);
        let verdict = compare::verdict(&controller, &fixed);
        let links = traces.len();
        let first = traces.into_iter().next().expect("there is at least one seed");
        OnTrace {
            link: first.name.clone(),
            links,
            requests: adaptive.requests,
            controller,
            foresight: (&foresight).into(),
            fixed,
            verdict,
            shown: (first, shown),
        }
    }

    fn scenario(&self, trace: &Trace, nth: u64) -> Scenario {
        let link =
            Link::ideal().with_delay(self.round_trip / 2).with_jitter(self.jitter, self.first_seed + nth);
        Scenario { period: self.period, deadline: self.deadline, link, seconds: trace.seconds() }
    }
}
