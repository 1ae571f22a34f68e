//! Adaptation: how to send the next tensor, from how the last ones fared.
//!
//! A [`Controller`] is given [operating points](OperatingPoint): ways to send the features of one input, each
//! with its size, its accuracy and its times, measured beforehand (`narrows calibrate --labels`). Told when
//! frames went out and answers came back, it believes something of the link, and picks for each input the
//! point of best *expected* accuracy: the point's accuracy times the probability that its answer is there in
//! time. An answer that comes late is worth nothing.
//!
//! It opens no socket and has no clock: times are [`Duration`](std::time::Duration)s since a beginning that the caller chooses,
//! and the same calls in the same order give the same decisions.
//!
//! ```
//! use std::time::Duration;
//! use narrows_link::adapt::{Controller, Decision, OperatingPoint, Settings};
//!
//! let point = |bytes: u64, accuracy| OperatingPoint {
//!     bytes: bytes as f64, bytes_high: 1.2 * bytes as f64, accuracy,
//!     device: Duration::from_millis(5), server: Duration::from_millis(1),
//! };
//! let points = vec![point(250, 88.0), point(1000, 93.0)];
//! let mut controller = Controller::new(points, Settings::deadline(Duration::from_millis(100)))?;
//!
//! // Nothing is known of the link yet: the smallest.
//! assert_eq!(controller.decide(Duration::ZERO), Decision::Send(0));
//! // Twenty frames of 250 bytes in 4 ms each: 500 kbit/s.
//! for n in 0..20 {
//!     let now = Duration::from_millis(100 * n);
//!     controller.decide(now);
//!     controller.sent(now, n, 250);
//!     controller.answered(now + Duration::from_millis(4), n, Duration::ZERO);
//! }
//! assert_eq!(controller.decide(Duration::from_secs(2)), Decision::Send(1));
//! # Ok::<(), narrows_link::Error>(())
//! ```
//!
//! # What it does when the link is gone
//!
//! Silence is evidence: a frame that has been under way for a time bounds the rate from above, before any
//! answer comes. When by that bound no point has a chance, either the link is gone or it is too slow for
//! everything. If a frame is stuck, the decision is the one for a link that comes back as it was: in the other
//! case nothing matters. This asks the caller to hand frames to the link one after the other, and to drop
//! (and report as [`lost`](Controller::lost)) those whose deadline passes while they wait, so that what the
//! link finds when it is back is fresh. If nothing is under way and the last three frames were lost, or no point has a
//! chance, the smallest point is sent as a probe, at
//! intervals that double from the deadline up to two seconds, and between probes the decision is
//! [`Decision::Hold`]: answer without the link, or not at all. A transfer that met an outage does not count as a
//! measurement; it only makes the controller less sure.

mod controller;
mod estimate;
mod point;

pub use controller::{Controller, Decision, Settings};
pub use point::OperatingPoint;
