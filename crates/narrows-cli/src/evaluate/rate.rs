//! Frames of a given rate: the finest quantiser whose frame still fits.

use std::sync::Arc;

use narrows::{
    Affine, Calibration, Clip, EncodeOptions, Encoder, MAX_LEVELS, Profile, Quantizer, Result, Tensor,
    TensorView,
};

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
    let mut fits = most_levels(|levels| Ok(encoder(levels)?.estimate(tensor)?.bytes <= budget))?;
    // Estimates are within 1 %, so a few steps down are enough.
    let mut frame = encoder(fits)?.encode(tensor)?;
    while frame.len() as f64 > budget && fits > 2 {
        fits -= 1;
        frame = encoder(fits)?.encode(tensor)?;
    }
    Ok(frame)
}

/// The profile for tensors like `samples` with as many levels over their whole range as `bits_per_element` allow, all
/// samples together. A text that the samples are not of may take a little more: it is left 1 % of room.
pub fn profile_within(samples: &[Tensor], bits_per_element: f32) -> Result<Arc<Profile>> {
    let views: Vec<_> = samples.iter().map(Tensor::view).collect();
    let elements: usize = samples.iter().map(|sample| sample.shape().elements()).sum();
    let budget = 0.99 * f64::from(bits_per_element) * elements as f64 / 8.0;
    let profile = |levels| Profile::calibrate(&views, &Calibration { levels, clip: Clip::Full, axis: None });
    let fits = |levels| {
        let mut encoder = Encoder::new(EncodeOptions {
            profile: Some(Arc::new(profile(levels)?)),
            ..EncodeOptions::default()
        })?;
        let bytes =
            views.iter().map(|sample| Ok(encoder.encode(sample)?.len() as f64)).sum::<Result<f64>>()?;
        Ok(bytes <= budget)
    };
    Ok(Arc::new(profile(most_levels(fits)?)?))
}

/// The largest number of levels that fits, 2 if none does: more levels take more bytes.
fn most_levels(fits: impl Fn(u16) -> Result<bool>) -> Result<u16> {
    let (mut most, mut too_many) = (2, MAX_LEVELS + 1);
    while most + 1 < too_many {
        let levels = most.midpoint(too_many);
        if fits(levels)? {
            most = levels;
        } else {
            too_many = levels;
        }
    }
    Ok(most)
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
    fn a_profile_keeps_to_its_rate_and_uses_it() {
        let values = features();
        let samples: Vec<_> =
            values.chunks(800).map(|values| Tensor::new(values.to_vec(), &[2, 400]).unwrap()).collect();
        for rate in [1.5, 2.5, 4.0] {
            let profile = profile_within(&samples, rate).unwrap();
            let options = EncodeOptions { profile: Some(profile), ..EncodeOptions::default() };
            let mut encoder = Encoder::new(options).unwrap();
            let bytes: usize =
                samples.iter().map(|sample| encoder.encode(&sample.view()).unwrap().len()).sum();
            let bits = bytes as f32 * 8.0 / values.len() as f32;
            assert!(bits <= rate && bits > 0.8 * rate, "{bits} for {rate}");
        }
    }

    #[test]
    fn a_constant_is_kept() {
        let values = [1.5; 64];
        let frame = encode_within(&TensorView::new(&values, &[64]).unwrap(), &values, 2.0).unwrap();
        assert_eq!(narrows::decode(&frame).unwrap().as_f32().unwrap(), values);
    }
}
