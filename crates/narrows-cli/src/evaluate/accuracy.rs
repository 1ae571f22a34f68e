//! Top-1 accuracy.

/// The class with the largest logit, the first of equals.
pub fn top_1(logits: &[f32]) -> usize {
    let larger = |best, (class, logit): (usize, &f32)| if *logit > logits[best] { class } else { best };
    logits.iter().enumerate().fold(0, larger)
}

/// How often the largest logit was the label's.
#[derive(Clone, Copy, Debug, Default)]
pub struct Accuracy {
    correct: usize,
    total: usize,
}

impl Accuracy {
    /// Count one image.
    pub fn record(&mut self, logits: &[f32], label: u8) {
        self.correct += usize::from(top_1(logits) == usize::from(label));
        self.total += 1;
    }

    /// Top-1 in percent.
    pub fn percent(self) -> f64 {
        100.0 * self.correct as f64 / self.total.max(1) as f64
    }

    /// This top-1 minus another one's over as many images, in percentage points.
    pub fn points_above(self, other: Self) -> f64 {
        debug_assert_eq!(self.total, other.total);
        let difference = self.correct as f64 - other.correct as f64;
        100.0 * difference / self.total.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_equal_logits_the_first_wins() {
        assert_eq!(top_1(&[0.5, 2.0, 2.0, -1.0]), 1);
    }

    #[test]
    fn accuracy_is_the_share_of_labels_found() {
        let mut accuracy = Accuracy::default();
        accuracy.record(&[0.0, 1.0], 1);
        accuracy.record(&[0.0, 1.0], 0);
        assert_eq!(accuracy.percent(), 50.0);
        let mut other = Accuracy::default();
        other.record(&[0.0, 1.0], 1);
        other.record(&[0.0, 1.0], 1);
        assert_eq!(accuracy.points_above(other), -50.0);
    }
}
