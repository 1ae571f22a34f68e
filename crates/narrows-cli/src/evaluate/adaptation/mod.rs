//! Adaptation over links that change: traces, and requests that have to be answered in time.

mod random;
mod simulation;
mod trace;

pub use random::Random;
pub use simulation::{Outcome, Policy, Record, Scenario, Workload, simulate};
pub use trace::{Kind, Trace};
