use std::time::Duration;

use crate::Error;

/// A way to send the features of one input, as it was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OperatingPoint {
    /// Mean size of a frame in bytes.
    pub bytes: f64,
    /// The size in bytes that only one frame in twenty exceeds.
    pub bytes_high: f64,
    /// Accuracy in percent of the answers, if they come.
    pub accuracy: f64,
    /// The device's part before anything is sent: head and encoder.
    pub device: Duration,
    /// The server's part: decoder and tail.
    pub server: Duration,
}

/// Standard deviations from the mean to the value that one in twenty exceeds.
const ONE_IN_TWENTY: f64 = 1.645;

impl OperatingPoint {
    /// Standard deviation of the logarithm of the size.
    pub(super) fn size_spread(&self) -> f64 {
        (self.bytes_high / self.bytes).ln().max(0.0) / ONE_IN_TWENTY
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        let valid = |what, value: f64, expected, holds: bool| {
            if value.is_finite() && holds {
                Ok(())
            } else {
                Err(Error::InvalidSetting { what, value, expected })
            }
        };
        let high = self.bytes_high;
        valid("mean bytes of an operating point", self.bytes, "finite and above 0", self.bytes > 0.0)?;
        valid(
            "high bytes of an operating point",
            high,
            "finite and no less than the mean",
            high >= self.bytes,
        )?;
        let accuracy = self.accuracy;
        valid("accuracy of an operating point", accuracy, "0 to 100", (0.0..=100.0).contains(&accuracy))
    }
}
