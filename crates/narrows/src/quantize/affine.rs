//! The affine map between values and symbols, and its exact inverse.

/// The largest magnitude of a zero point, so that `symbol - zero` always fits an `i32`.
pub const MAX_ZERO: i32 = 1 << 30;

/// The largest number of levels: a symbol of a dense layout is one byte.
pub const MAX_LEVELS: u16 = 256;

/// `symbol = clamp(round(x / step) + zero, 0, levels - 1)`, undone by `x = (symbol - zero) * step`.
///
/// This is asymmetric integer quantisation (AIQ) when step and zero point come from a range
/// ([`Affine::from_range`]): `step = (max - min) / (levels - 1)`, `zero = round(-min / step)`.
///
/// The arithmetic is part of the specification, so that every machine gets the same symbols and
/// the same values:
/// - quantise, in f32: `clamp(rne(x * fl(1/step)) + fl(zero), 0, levels - 1)`, where `rne` rounds to
///   the nearest integer, ties to even, and `fl` to the nearest f32;
/// - dequantise, in f32: `fl(fl(symbol - zero) * step)`, without fused multiply-add, saturated to
///   the largest finite value of the tensor's type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Affine {
    step: f32,
    zero: i32,
    levels: u16,
}

impl Affine {
    /// A map with these parameters, if they are valid: a positive, finite, normal step,
    /// `|zero| <= 2^30` and 2 to 256 levels.
    pub fn new(step: f32, zero: i32, levels: u16) -> Option<Self> {
        let valid = step.is_normal()
            && step > 0.0
            && zero.unsigned_abs() <= MAX_ZERO.unsigned_abs()
            && (2..=MAX_LEVELS).contains(&levels);
        valid.then_some(Self { step, zero, levels })
    }

    /// AIQ over the finite range `min..=max`, `min < max` (paper A, section III).
    ///
    /// The step is kept at or above the smallest normal f32 and above `2^-30` of the range's
    /// larger end, so that the zero point is an exact integer within its bound.
    pub fn from_range(min: f32, max: f32, levels: u16) -> Self {
        debug_assert!(min < max && min.is_finite() && max.is_finite() && levels >= 2);
        let range = f64::from(max) - f64::from(min);
        let floor = f64::from(min.abs().max(max.abs())) / f64::from(MAX_ZERO);
        let step = (range / f64::from(levels - 1)).max(floor * 1.001) as f32;
        let step = step.clamp(f32::MIN_POSITIVE, f32::MAX);
        let zero = (-f64::from(min) / f64::from(step)).round_ties_even();
        let bound = f64::from(MAX_ZERO);
        Self { step, zero: zero.clamp(-bound, bound) as i32, levels }
    }

    /// The same map with its step rounded up to a bf16, as a frame stores one per channel.
    pub(crate) fn with_short_step(self) -> Self {
        let bits = self.step.to_bits();
        let short = f32::from_bits(((bits + 0xffff) & 0xffff_0000).min(half::bf16::MAX.to_f32().to_bits()));
        // The zero point moves with the step, so that the range's lower end stays where it was.
        let zero = (f64::from(self.zero) * f64::from(self.step) / f64::from(short)).round_ties_even() as i32;
        Self { step: short, zero, levels: self.levels }
    }

    /// A map that takes the finite `value` to a symbol and back to within a bf16's precision.
    pub(crate) fn of_constant(value: f32, levels: u16) -> Self {
        let largest = half::bf16::MAX.to_f32();
        let magnitude = half::bf16::from_f32(value.abs()).to_f32().clamp(f32::MIN_POSITIVE, largest);
        let zero = if value == 0.0 { 0 } else { i32::from(value < 0.0) };
        Self { step: magnitude, zero, levels }
    }

    /// Distance between neighbouring values.
    pub const fn step(&self) -> f32 {
        self.step
    }

    /// The symbol of the value zero (it may lie outside the alphabet).
    pub const fn zero(&self) -> i32 {
        self.zero
    }

    /// Size of the alphabet.
    pub const fn levels(&self) -> u16 {
        self.levels
    }

    /// Quantise one finite value.
    pub fn quantize(&self, x: f32) -> u8 {
        self.quantizer()(x)
    }

    /// The quantiser with its reciprocal computed once.
    pub(crate) fn quantizer(&self) -> impl Fn(f32) -> u8 + Copy + use<> {
        let (reciprocal, zero, top) = (1.0 / self.step, self.zero as f32, f32::from(self.levels - 1));
        move |x| ((x * reciprocal).round_ties_even() + zero).clamp(0.0, top) as u8
    }

    /// The value of a symbol, before conversion to the tensor's type.
    pub fn dequantize(&self, symbol: u8) -> f32 {
        self.unclamped(symbol).clamp(f32::MIN, f32::MAX)
    }

    /// [`Affine::dequantize`] before it saturates; monotone in the symbol.
    pub(crate) fn unclamped(&self, symbol: u8) -> f32 {
        (i32::from(symbol) - self.zero) as f32 * self.step
    }

    /// The values of all symbols.
    pub fn values(&self) -> [f32; MAX_LEVELS as usize] {
        std::array::from_fn(|symbol| self.dequantize(symbol as u8))
    }
}
