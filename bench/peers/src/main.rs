//! narrows and its peers on the same arrays, in the same process; `bench/run` builds and starts it.
//!
//! ```text
//! peers [--quick] FEATURES RESULTS
//! ```
//! reads real arrays from the folder FEATURES, writes RESULTS.json, RESULTS.svg and RESULTS.md (the short table
//! of the README), and prints every row.

mod coders;
mod data;
mod frames;
mod machine;
mod measure;
mod must_hold;
mod plot;
mod results;
mod summary;
mod symbols;
mod table;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;
use std::{env, fs};

use data::{Real, Scope};
use machine::Machine;
use measure::Budget;
use results::{Missing, Results};

const QUICK: Budget = Budget { each: Duration::from_millis(8), least: 5, most: 31 };
/// Of arrays of 16 M symbols, of which one call may take a second.
const LARGE: Budget = Budget { each: Duration::from_millis(300), least: 5, most: 31 };
const FULL: Budget = Budget { each: Duration::from_millis(60), least: 7, most: 201 };
/// A program that a test may have left this in would measure one path under every name.
const FORCED_PATH: &str = "NARROWS_PATH";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (options, places): (Vec<_>, Vec<_>) =
        arguments.iter().partition(|argument| argument.starts_with("--"));
    let scope = if options.iter().any(|option| *option == "--quick") { Scope::Quick } else { Scope::Full };
    let [features, results] = places[..] else {
        eprintln!("usage: peers [--quick] FEATURES RESULTS");
        return ExitCode::from(2);
    };
    if env::var_os(FORCED_PATH).is_some() {
        eprintln!("unset {FORCED_PATH}: the paths are measured one by one");
        return ExitCode::from(2);
    }
    let found = run(Path::new(features), scope);
    table::print(&found);
    for (end, contents) in
        [("json", found.json()), ("svg", plot::svg(&found)), ("md", summary::markdown(&found))]
    {
        let path = Path::new(results).with_extension(end);
        if let Err(error) = fs::write(&path, contents) {
            eprintln!("{}: {error}", path.display());
            return ExitCode::from(74);
        }
        println!("written: {}", path.display());
    }
    ExitCode::SUCCESS
}

fn run(features: &Path, scope: Scope) -> Results {
    let budget = if scope == Scope::Quick { QUICK } else { FULL };
    let mut missing = coders::missing();
    let real = Real::read(features);
    if real.features.is_empty() || real.weights.is_empty() {
        let reason = "bench/out/features is not there; bench/run without --quick makes it".into();
        missing.push(Missing { coder: "real features and weights".into(), reason });
    }
    let mut rows = Vec::new();
    for data in data::all(&real, scope) {
        eprintln!("{}, {} symbols", data.name, data.symbols.len());
        let budget = if data.symbols.len() >= data::LARGE { LARGE } else { budget };
        rows.extend(symbols::rows(&data, budget, &mut missing));
    }
    eprintln!("whole tensors");
    rows.extend(frames::rows(&real, budget));
    let must_hold = must_hold::lines(&rows);
    Results { machine: Machine::here(), missing, rows, must_hold }
}
