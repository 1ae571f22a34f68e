//! The rate of a fading channel.

use std::time::Duration;

use super::{Link, check};
use crate::Error;

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
/// default is its setting, which gives 143.6 kbit/s, and 3.12 s for the 56 KB of its tensor.
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

/// How the time of a transfer follows from an [`Outage`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OutageMode {
    /// As the formula says: `bytes * 8 / R`. The right one.
    #[default]
    Outage,
    /// As the reference's own Table 3 was computed, for comparison with it and nothing else:
    /// `(bytes / 8) / (W log2(1 - gamma ln(epsilon)))` seconds. It takes the other tail of the
    /// distribution (the power that is *exceeded* with probability epsilon), leaves `sigma_h^2`
    /// out, and divides by eight where bits want a multiplication. It gives 6.6 ms for 3.24 MB,
    /// which no 10 MHz channel of 10 dB carries.
    PaperTable3,
}

impl Outage {
    /// The epsilon-outage rate in bit/s.
    ///
    /// # Errors
    /// A parameter outside its range.
    pub fn rate(&self) -> Result<f64, Error> {
        self.rate_in(OutageMode::Outage)
    }

    /// The rate in bit/s at which bytes take the time that `mode` gives them.
    ///
    /// # Errors
    /// A parameter outside its range.
    pub fn rate_in(&self, mode: OutageMode) -> Result<f64, Error> {
        let Outage { bandwidth_hz, gamma_db, sigma_h2, epsilon } = *self;
        check("bandwidth in Hz", bandwidth_hz, "finite and above 0", |hz| hz > 0.0)?;
        check("gamma in dB", gamma_db, "finite", |_| true)?;
        check("sigma_h^2", sigma_h2, "finite and above 0", |gain| gain > 0.0)?;
        check("epsilon", epsilon, "above 0 and below 1", |epsilon| epsilon > 0.0 && epsilon < 1.0)?;
        let gamma = 10f64.powf(gamma_db / 10.0);
        // ln_1p keeps ln(1 - epsilon) and log2(1 + x) exact where their arguments are small.
        let capacity = |snr: f64| bandwidth_hz * snr.ln_1p() / std::f64::consts::LN_2;
        Ok(match mode {
            OutageMode::Outage => capacity(-gamma * sigma_h2 * (-epsilon).ln_1p()),
            // (bytes / 8) / C seconds are bytes * 8 bits at 64 C.
            OutageMode::PaperTable3 => 64.0 * capacity(-gamma * epsilon.ln()),
        })
    }

    /// The time that `mode` gives so many bytes.
    ///
    /// # Errors
    /// A parameter outside its range.
    pub fn transfer_time(&self, mode: OutageMode, bytes: u64) -> Result<Duration, Error> {
        Ok(Link::at_rate(self.rate_in(mode)?)?.transfer_time(bytes))
    }
}
