//! A link emulator in user space: a radio link's rate, delay, jitter, losses and faults without a
//! radio.
//!
//! [`Link`] is the model (how long do these bytes take?), [`Outage`] gives the rate of a fading
//! channel, [`Trace`] a rate that changes with time, and [`Proxy`] makes TCP connections on this
//! machine behave like the link, and break as its [`Faults`] say.
//!
//! ```
//! use narrows_link::emulator::{Link, Outage};
//!
//! let link = Link::at_rate(Outage::default().rate()?)?;
//! assert_eq!(link.transfer_time(56_000).as_secs(), 3);
//! # Ok::<(), narrows_link::Error>(())
//! ```

mod faults;
mod outage;
mod proxy;
mod registry;
mod trace;

pub use faults::{Fault, Faults};
pub use outage::{Outage, OutageMode};
pub use proxy::{Proxy, ProxyOptions, Traffic};
pub use trace::{Step, Trace};

use std::time::Duration;

use crate::Error;

/// A link in one direction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Link {
    /// Finite and above zero, or no serialisation time at all.
    rate: Option<f64>,
    delay: Duration,
    jitter: Duration,
    /// Probability that a transfer is lost once, and how long until it is sent again.
    loss: f64,
    stall: Duration,
    seed: u64,
}

impl Link {
    /// No serialisation time, no delay, no jitter.
    pub fn ideal() -> Link {
        Link {
            rate: None,
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            loss: 0.0,
            stall: Duration::ZERO,
            seed: 0,
        }
    }

    /// A link that takes one bit in `1 / bits_per_second` seconds.
    ///
    /// # Errors
    /// The rate is not a finite number above zero.
    pub fn at_rate(bits_per_second: f64) -> Result<Link, Error> {
        check("rate in bit/s", bits_per_second, "finite and above 0", |rate| rate > 0.0)?;
        Ok(Link { rate: Some(bits_per_second), ..Link::ideal() })
    }

    /// The same link with every bit arriving `delay` later.
    #[must_use]
    pub fn with_delay(self, delay: Duration) -> Link {
        Link { delay, ..self }
    }

    /// The same link with a further delay per transfer, uniform in 0..`jitter` and the same in
    /// every run with the same seed.
    #[must_use]
    pub fn with_jitter(self, jitter: Duration, seed: u64) -> Link {
        Link { jitter, seed, ..self }
    }

    /// The same link on which a transfer is lost with this probability. TCP repeats what is lost, so
    /// a loss is a `stall`: the transfer, and all behind it, arrive so much later.
    ///
    /// # Errors
    /// The probability is not in 0..=1.
    pub fn with_loss(self, probability: f64, stall: Duration) -> Result<Link, Error> {
        check("loss", probability, "between 0 and 1", |loss| (0.0..=1.0).contains(&loss))?;
        Ok(Link { loss: probability, stall, ..self })
    }

    /// The rate in bit/s; `None` is infinite.
    pub fn rate(&self) -> Option<f64> {
        self.rate
    }

    /// The delay, jitter aside.
    pub fn delay(&self) -> Duration {
        self.delay
    }

    /// The time from the first bit of `bytes` entering the link to the last one entering it.
    pub fn serialisation_time(&self, bytes: u64) -> Duration {
        self.rate.map_or(Duration::ZERO, |rate| {
            Duration::try_from_secs_f64(bytes as f64 * 8.0 / rate).unwrap_or(Duration::MAX)
        })
    }

    /// The jitter of the transfer number `nth`.
    pub fn jitter_of(&self, nth: u64) -> Duration {
        let fraction = fraction(split_mix(self.seed, nth));
        Duration::try_from_secs_f64(self.jitter.as_secs_f64() * fraction).unwrap_or(self.jitter)
    }

    /// The stall of the transfer number `nth`: zero unless it is lost.
    pub fn stall_of(&self, nth: u64) -> Duration {
        // Another sequence than the jitter's.
        let is_lost = fraction(split_mix(!self.seed, nth)) < self.loss;
        if is_lost { self.stall } else { Duration::ZERO }
    }

    /// The time from the first bit of `bytes` entering the idle link to the last one leaving it,
    /// without jitter: serialisation and delay.
    pub fn transfer_time(&self, bytes: u64) -> Duration {
        self.serialisation_time(bytes).saturating_add(self.delay)
    }

    /// The same for the transfer number `nth`, with its jitter and its stall.
    pub fn transfer_time_of(&self, nth: u64, bytes: u64) -> Duration {
        self.transfer_time(bytes).saturating_add(self.jitter_of(nth)).saturating_add(self.stall_of(nth))
    }
}

/// Output `nth` of `SplitMix64` (Steele, Lea and Flood 2014): its state is a counter, so any output
/// can be had without the ones before.
fn split_mix(seed: u64, nth: u64) -> u64 {
    let mut z = seed.wrapping_add(nth.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A number in 0..1 of the upper 53 bits, exact in a f64.
fn fraction(random: u64) -> f64 {
    (random >> 11) as f64 / (1u64 << 53) as f64
}

fn check(
    what: &'static str,
    value: f64,
    expected: &'static str,
    holds: impl FnOnce(f64) -> bool,
) -> Result<(), Error> {
    if value.is_finite() && holds(value) {
        Ok(())
    } else {
        Err(Error::InvalidSetting { what, value, expected })
    }
}
