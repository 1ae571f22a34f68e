//! Axes: what they span, and where their ticks are.

use std::ops::Range;

/// How an axis spaces its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    Linear,
    /// By factors; values must be above 0.
    Log,
}

/// An axis of a chart.
#[derive(Clone, Debug)]
pub struct Axis {
    pub name: String,
    pub scale: Scale,
    pub range: Range<f64>,
    /// A tick's value for people.
    pub format: fn(f64) -> String,
}

impl Axis {
    /// An axis that spans `values` and a margin.
    pub fn around(name: &str, scale: Scale, values: impl IntoIterator<Item = f64>) -> Self {
        let usable = |x: &f64| x.is_finite() && (scale == Scale::Linear || *x > 0.0);
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        values.into_iter().filter(usable).for_each(|x| (low, high) = (low.min(x), high.max(x)));
        if low > high {
            (low, high) = (1.0, 10.0);
        }
        let range = if scale == Scale::Log {
            let margin = (high / low).powf(0.04).max(1.08);
            low / margin..high * margin
        } else {
            let margin = (0.05 * (high - low)).max(1e-9 * high.abs().max(1.0));
            low - margin..high + margin
        };
        Self { name: name.to_owned(), scale, range, format: plain }
    }

    /// The same axis over another range.
    #[must_use]
    pub fn over(self, range: Range<f64>) -> Self {
        Self { range, ..self }
    }

    /// The same axis with ticks written by `format`.
    #[must_use]
    pub fn with_format(self, format: fn(f64) -> String) -> Self {
        Self { format, ..self }
    }

    /// Where a value lies, in the coordinates of [`Axis::span`].
    pub(super) fn place(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Linear => value,
            Scale::Log => value.max(f64::MIN_POSITIVE).log10(),
        }
    }

    pub(super) fn span(&self) -> Range<f64> {
        self.place(self.range.start)..self.place(self.range.end)
    }

    /// Values to label, about `wanted` of them, at 1, 2 and 5 times powers of ten.
    pub(super) fn ticks(&self, wanted: usize) -> Vec<f64> {
        let Range { start, end } = self.range;
        let wanted = wanted.max(2) as f64;
        if self.scale == Scale::Log {
            let decades = (end / start).log10();
            let factors: &[f64] = match wanted / decades.max(1e-9) {
                many if many >= 6.0 => &[1.0, 1.5, 2.0, 3.0, 5.0, 7.0],
                many if many >= 2.5 => &[1.0, 2.0, 5.0],
                _ => &[1.0],
            };
            let exponents = start.log10().floor() as i32..=end.log10().ceil() as i32;
            let all = exponents.flat_map(|exponent| factors.iter().map(move |f| f * 10_f64.powi(exponent)));
            return all.filter(|tick| (start..=end).contains(tick)).collect();
        }
        let rough = (end - start) / wanted;
        let power = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|f| f * power).into_iter().find(|&step| step >= rough);
        let step = step.unwrap_or(rough);
        let (first, last) = ((start / step).ceil() as i64, (end / step).floor() as i64);
        (first..=last).map(|n| n as f64 * step).collect()
    }
}

/// A number with as many decimals as it needs, and at most 4.
pub fn plain(value: f64) -> String {
    let text = format!("{value:.4}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    let (sign, digits) = text.strip_prefix('-').map_or(("", text), |digits| ("-", digits));
    let (whole, rest) = digits.split_once('.').map_or((digits, None), |(whole, rest)| (whole, Some(rest)));
    let whole = whole.parse::<u64>().map_or_else(|_| whole.to_owned(), crate::output::grouped);
    match rest {
        Some(rest) => format!("{sign}{whole}.{rest}"),
        None if whole == "0" => whole,
        None => format!("{sign}{whole}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_numbers_within_the_range() {
        let axis = Axis::around("", Scale::Linear, [0.0, 9.3]);
        assert_eq!(axis.ticks(6), [0.0, 2.0, 4.0, 6.0, 8.0]);
        let axis = Axis::around("", Scale::Log, [80.0, 2200.0]);
        assert_eq!(axis.ticks(6), [100.0, 200.0, 500.0, 1000.0, 2000.0]);
    }

    #[test]
    fn an_axis_without_values_still_has_a_range() {
        for scale in [Scale::Linear, Scale::Log] {
            let axis = Axis::around("", scale, [f64::NAN]);
            assert!(axis.range.start < axis.range.end && axis.range.end.is_finite());
            let axis = Axis::around("", scale, [3.0, 3.0]);
            assert!(axis.range.start < 3.0 && axis.range.end > 3.0);
        }
    }

    #[test]
    fn numbers_are_written_as_people_do() {
        let numbers = [0.0, 0.25, 12_500.0, -3.0, 1234.5];
        assert_eq!(numbers.map(plain), ["0", "0.25", "12,500", "-3", "1,234.5"]);
    }
}
