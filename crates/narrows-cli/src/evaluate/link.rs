//! Rates of emulated links.

use std::time::Duration;

use narrows_link::emulator::Outage;

use crate::failure::{Failure, Result};

/// The rate of the reference work's link, in bit/s.
pub fn reference_rate() -> Result<f64> {
    Outage::default().rate().map_err(|error| Failure::link("cannot set up the link", &error))
}

/// A rate in bit/s from a number with an optional `k`, `M` or `G`.
pub fn parse_rate(text: &str) -> Result<f64, String> {
    let (number, factor) = match text.char_indices().next_back() {
        Some((end, 'k' | 'K')) => (&text[..end], 1e3),
        Some((end, 'M')) => (&text[..end], 1e6),
        Some((end, 'G')) => (&text[..end], 1e9),
        _ => (text, 1.0),
    };
    match number.trim().parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(rate * factor),
        _ => Err("a rate is a number of bits per second above 0, such as 143600, 143.6k or 10M".into()),
    }
}

/// A time from a number with `us`, `ms` or `s`.
pub fn parse_time(text: &str) -> Result<Duration, String> {
    let units = [("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0)];
    let unit = units.into_iter().find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, seconds)));
    let seconds = unit.and_then(|(number, unit)| Some(number.trim().parse::<f64>().ok()? * unit));
    let time = seconds.filter(|seconds| (0.0..=86_400.0).contains(seconds));
    time.map(Duration::from_secs_f64)
        .ok_or_else(|| "a time is a number with us, ms or s, such as 150ms, and a day at most".into())
}

/// A factor between two machines.
pub fn parse_factor(text: &str) -> Result<f64, String> {
    let factor = text.parse().ok().filter(|factor| (1e-6..=1e6).contains(factor));
    factor.ok_or_else(|| "a factor is a number from 0.000001 to 1000000".to_owned())
}

/// A rate for people.
pub fn rate_in_words(bits_per_second: f64) -> String {
    match bits_per_second {
        rate if rate >= 1e9 => format!("{:.1} Gbit/s", rate / 1e9),
        rate if rate >= 1e6 => format!("{:.1} Mbit/s", rate / 1e6),
        rate if rate >= 1e3 => format!("{:.1} kbit/s", rate / 1e3),
        rate => format!("{rate:.0} bit/s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_may_end_in_a_thousand_or_a_million() {
        assert_eq!(parse_rate("143.5k"), Ok(143_500.0));
        assert_eq!(parse_rate("10 M"), Ok(10e6));
        assert_eq!(parse_rate("9600"), Ok(9600.0));
        assert!(parse_rate("0").is_err() && parse_rate("k").is_err() && parse_rate("inf").is_err());
    }

    #[test]
    fn a_time_has_a_unit() {
        assert_eq!(parse_time("150ms"), Ok(Duration::from_millis(150)));
        assert_eq!(parse_time("2 s"), Ok(Duration::from_secs(2)));
        assert_eq!(parse_time("0.5us"), Ok(Duration::from_nanos(500)));
        for wrong in ["150", "ms", "-1s", "inf s", "NaNs", "1e9s", ""] {
            assert!(parse_time(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_reference_link_carries_143_6_kilobits_a_second() {
        assert_eq!(rate_in_words(reference_rate().unwrap()), "143.6 kbit/s");
    }
}
