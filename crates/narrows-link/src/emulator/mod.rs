//! A link emulator in user space: a radio link's rate, delay and jitter without a radio.
//!
//! [`Link`] is the model (how long do these bytes take?), [`Outage`] gives the rate of a fading
//! channel, and [`Proxy`] makes a TCP connection on this machine behave like the link.
//!
//! ```
//! use narrows_link::emulator::{Link, Outage};
//!
//! let link = Link::at_rate(Outage::default().rate()?)?;
//! assert_eq!(link.transfer_time(56_000).as_secs(), 3);
//! # Ok::<(), narrows_link::Error>(())
//! ```

mod proxy;

pub use proxy::Proxy;

use std::time::Duration;

use crate::Error;

/// A link in one direction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Link {
    /// Finite and above zero, or no serialisation time at all.
    rate: Option<f64>,
    delay: Duration,
    jitter: Duration,
    seed: u64,
}

impl Link {
    /// No serialisation time, no delay, no jitter.
    pub fn ideal() -> Link {
        Link { rate: None, delay: Duration::ZERO, jitter: Duration::ZERO, seed: 0 }
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
        // The upper 53 bits are a fraction in 0..1, exact in a f64.
        let fraction = (split_mix(self.seed, nth) >> 11) as f64 / (1u64 << 53) as f64;
        Duration::try_from_secs_f64(self.jitter.as_secs_f64() * fraction).unwrap_or(self.jitter)
    }

    /// The time from the first bit of `bytes` entering the idle link to the last one leaving it,
    /// without jitter: serialisation and delay.
    pub fn transfer_time(&self, bytes: u64) -> Duration {
        self.serialisation_time(bytes).saturating_add(self.delay)
    }

    /// The same for the transfer number `nth`, with its jitter.
    pub fn transfer_time_of(&self, nth: u64, bytes: u64) -> Duration {
        self.transfer_time(bytes).saturating_add(self.jitter_of(nth))
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

/// A Rayleigh-fading channel used at its epsilon-outage rate: the highest rate at which a
/// transmission fails, because the channel is in a fade, with probability `epsilon` only.
///
/// The received power `g` = |h|^2 is exponential with mean `sigma_h^2`, so
/// `P(g < x) = 1 - exp(-x / sigma_h^2)`. Setting this to epsilon gives the power that is missed
/// with probability epsilon, `x = -sigma_h^2 ln(1 - epsilon)`, and Shannon's capacity there is
///
/// `R = W log2(1 + gamma x) = W log2(1 - gamma sigma_h^2 ln(1 - epsilon))` bit/s
///
/// with the bandwidth `W` in hertz and the mean signal-to-noise ratio `gamma` as a plain ratio
/// (10 dB is 10). This is the link model of the feature-compression reference (method A); the
/// default is its setting, which gives 143.6 kbit/s.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outage {
    /// Bandwidth `W` in hertz.
    pub bandwidth_hz: f64,
    /// Mean signal-to-noise ratio in decibels.
    pub gamma_db: f64,
    /// Mean power gain of the channel, dimensionless.
    pub sigma_h2: f64,
    /// Probability of outage, between 0 and 1.
    pub epsilon: f64,
}

impl Default for Outage {
    fn default() -> Outage {
        Outage { bandwidth_hz: 10e6, gamma_db: 10.0, sigma_h2: 1.0, epsilon: 0.001 }
    }
}

impl Outage {
    /// The epsilon-outage rate in bit/s.
    ///
    /// # Errors
    /// A parameter outside its range.
    pub fn rate(&self) -> Result<f64, Error> {
        let Outage { bandwidth_hz, gamma_db, sigma_h2, epsilon } = *self;
        check("bandwidth in Hz", bandwidth_hz, "finite and above 0", |hz| hz > 0.0)?;
        check("gamma in dB", gamma_db, "finite", |_| true)?;
        check("sigma_h^2", sigma_h2, "finite and above 0", |gain| gain > 0.0)?;
        check("epsilon", epsilon, "above 0 and below 1", |epsilon| epsilon > 0.0 && epsilon < 1.0)?;
        let gamma = 10f64.powf(gamma_db / 10.0);
        // ln_1p keeps ln(1 - epsilon) and log2(1 + x) exact where their arguments are small.
        let snr_at_outage = -gamma * sigma_h2 * (-epsilon).ln_1p();
        Ok(bandwidth_hz * snr_at_outage.ln_1p() / std::f64::consts::LN_2)
    }
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
