//! How much the rate counts beside the loss.

use serde::{Deserialize, Serialize};

use crate::settings::Goal;

/// The price of one bit a weight, moved until the rate is where it should be.
///
/// With a rate to reach, the target falls from the first rate to the last along a straight line of logarithms and stays there.
/// The price follows it like a proportional-integral controller of logarithms: a rate 10 % too high raises the price by
/// half at once, and by a third more every ten steps that it stays there. Rates are compared without what no price
/// changes (steps, biases, names).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Price {
    goal: Goal,
    /// Bits a weight at the first step.
    first: Option<f64>,
    /// Bits a weight to reach, if the goal is not a price.
    pub(crate) target: f64,
    integral: f64,
    value: f64,
}

/// Over this part of a training a fixed price rises from 0.
const WARM_UP: f64 = 0.3;
/// Over this part the target falls.
const DESCENT: f64 = 0.5;
/// After this part the price stays as it is: learning rates are too small to follow it.
const SETTLED: f64 = 0.9;
const START: f64 = 0.05;
const PROPORTIONAL: f64 = 4.0;
const INTEGRAL: f64 = 0.03;
/// Prices above make weights all zero before the rate can be seen to fall.
const HIGHEST: f64 = 3.0;
/// The target is a little below what was asked for, so that what remains of the swinging does not miss it.
const MARGIN: f64 = 0.99;
/// Bits a weight that the price is asked for at least, where what it cannot change takes all that was wanted.
const LEAST: f64 = 0.01;
/// With accuracy to keep, the first target and how far it goes at most.
const FIRST_TARGET: f64 = 1.0;
const LOWEST: f64 = 0.05;
const HIGHEST_TARGET: f64 = 16.0;

impl Price {
    pub(crate) const fn new(goal: Goal) -> Self {
        let target = match goal {
            Goal::Price(_) => 0.0,
            Goal::BitsPerWeight(bits) => bits * MARGIN,
            Goal::Drop(_) => FIRST_TARGET,
        };
        Self { goal, first: None, target, integral: 0.0, value: 0.0 }
    }

    /// The price for a step when this part of the training is `done` and the network takes `bits` a weight, of which `fixed` are
    /// not the price's to change.
    pub(crate) fn next(&mut self, done: f64, bits: f64, fixed: f64) -> f64 {
        let bits = (bits - fixed).max(LEAST);
        let first = *self.first.get_or_insert(bits);
        let target = (self.target - fixed).max(LEAST);
        if let Goal::Price(price) = self.goal {
            self.value = price * (done / WARM_UP).min(1.0);
        } else if done < SETTLED {
            let along = (done / DESCENT).min(1.0);
            let now = (first.max(target).ln() * (1.0 - along) + target.ln() * along).exp();
            let error = (bits / now).ln();
            self.integral = (self.integral + INTEGRAL * error).clamp(-6.0, (HIGHEST / START).ln());
            self.value = (START * (PROPORTIONAL * error + self.integral).exp()).min(HIGHEST);
        }
        self.value
    }

    /// Take in how many points of accuracy are lost: a target that costs less than it may goes down.
    pub(crate) fn measured(&mut self, done: f64, drop: f64) {
        if let Goal::Drop(allowed) = self.goal
            && done < SETTLED
        {
            let room = ((allowed - drop) / allowed).clamp(-1.0, 1.0);
            self.target = (self.target * (-0.3 * room).exp()).clamp(LOWEST, HIGHEST_TARGET);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fixed_price_warms_up_and_stays() {
        let mut price = Price::new(Goal::Price(0.4));
        assert_eq!(price.next(0.0, 2.0, 0.0), 0.0);
        assert!((price.next(0.15, 2.0, 0.0) - 0.2).abs() < 1e-12);
        assert_eq!(price.next(0.7, 0.1, 0.0), 0.4);
    }

    /// Weights that give way to the price, slowly: the rate moves towards `0.2 / price`.
    fn simulated(goal: Goal, fixed: f64) -> f64 {
        let (mut price, mut bits, steps) = (Price::new(goal), 2.5_f64, 1800);
        for step in 0..steps {
            let now = price.next(f64::from(step) / f64::from(steps), bits + fixed, fixed);
            let settled = (0.2 / now.max(1e-3)).clamp(0.1, 3.0);
            bits += 0.02 * (settled - bits);
        }
        bits + fixed
    }

    #[test]
    fn a_target_is_reached_and_not_passed_by_much() {
        for (target, fixed) in [(0.3, 0.0), (0.5, 0.13), (1.0, 0.13), (2.0, 0.0)] {
            let reached = simulated(Goal::BitsPerWeight(target), fixed);
            assert!((0.9 * target..=target).contains(&reached), "{target} wanted, {reached} reached");
        }
    }

    #[test]
    fn accuracy_to_spare_lowers_the_target_and_a_loss_raises_it() {
        let mut price = Price::new(Goal::Drop(1.0));
        price.measured(0.5, 0.2);
        let lower = price.target;
        assert!(lower < FIRST_TARGET);
        price.measured(0.5, 3.0);
        assert!(price.target > lower);
    }
}
