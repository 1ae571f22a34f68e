//! Frames of a given rate: the finest quantiser whose frame still fits.

use narrows::{Affine, EncodeOptions, Encoder, MAX_LEVELS, Quantizer, Result, TensorView};

/// Encode a tensor over its full range, with as many levels, 2 to 256, as `bits_per_element` allow. Two levels may take
/// more: then the frame is as small as it gets.
pub fn encode_within(tensor: &TensorView<'_>, values: &[f32], bits_per_element: f32) -> Result<Vec<u8>> {
    let budget = f64::from(bits_per_element) * values.len() as f64 / 8.0;
    let (min, max) =
        values.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(min, max), &x| (min.min(x), max.max(x)));
    if values.iter().any(|value| !value.is_finite()) || min >= max {
        // The codec says what is wrong with it, or keeps its one value.
        return Encoder::new(EncodeOptions::default())?.encode(tensor);
    }
    let encoder = |levels| {
        let quantizer = Quantizer::Fixed(Affine::from_range(min, max, levels));
        Encoder::new(EncodeOptions { quantizer, ..EncodeOptions::default() })
    };
    let (mut fits, mut too_many) = (2, MAX_LEVELS + 1);
    while fits + 1 < too_many {
        let levels = fits.midpoint(too_many);
        if encoder(levels)?.estimate(tensor)?.bytes <= budget {
            fits = levels;
        } else {
            too_many = levels;
        }
    }
    // Estimates are within 1 %, so a few steps down are enough.
    let mut frame = encoder(fits)?.encode(tensor)?;
    while frame.len() as f64 > budget && fits > 2 {
        fits -= 1;
        frame = encoder(fits)?.encode(tensor)?;
    }
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn features() -> Vec<f32> {
        (0..8000_u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 24) as f32)
            .map(|x| x.powi(3))
            .collect()
    }

    #[test]
    fn a_frame_keeps_to_its_rate_and_uses_it() {
        let values = features();
        let tensor = TensorView::new(&values, &[20, 400]).unwrap();
        for rate in [1.5, 2.5, 4.0] {
            let bits = encode_within(&tensor, &values, rate).unwrap().len() as f32 * 8.0 / 8000.0;
            assert!(bits <= rate, "{bits} for {rate}");
            assert!(bits > 0.8 * rate, "{bits} for {rate}");
        }
    }

    #[test]
    fn a_rate_that_nothing_fits_gives_the_smallest_frame() {
        let values = features();
        let tensor = TensorView::new(&values, &[20, 400]).unwrap();
        assert!(encode_within(&tensor, &values, 0.01).unwrap().len() < 8000 / 8 + 100);
    }

    #[test]
    fn a_constant_is_kept() {
        let values = [1.5; 64];
        let frame = encode_within(&TensorView::new(&values, &[64]).unwrap(), &values, 2.0).unwrap();
        assert_eq!(narrows::decode(&frame).unwrap().as_f32().unwrap(), values);
    }
}
