//! Model files that are damaged or lie.

use std::path::Path;

use narrows_weights::Error;
use narrows_weights::net::{Model, OnnxError};
use proptest::prelude::*;

fn demo() -> Vec<u8> {
    std::fs::read(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/fashion-resnet/model.onnx")))
        .unwrap()
}

#[test]
fn a_model_that_was_cut_off_is_refused_at_every_length() {
    let model = demo();
    for length in (0..model.len()).step_by(997) {
        assert!(Model::from_bytes(model[..length].to_vec()).is_err(), "{length} bytes");
    }
}

#[test]
fn a_file_that_is_no_model_says_so() {
    let refused = Model::from_bytes(b"\x93NUMPY of all things".to_vec()).unwrap_err();
    assert!(matches!(refused, Error::Onnx(OnnxError::Decode { .. })), "{refused}");
    assert!(matches!(Model::open(Path::new("no such file")).unwrap_err(), Error::Io { .. }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn flipped_bytes_never_panic(places in prop::collection::vec((0..4000_usize, any::<u8>()), 1..8)) {
        let mut model = demo();
        let length = model.len();
        // Names, shapes and attributes lie at both ends.
        for (place, value) in places {
            let at = if place % 2 == 0 { place / 2 } else { length - 1 - place / 2 };
            model[at] = value;
        }
        if let Ok(model) = Model::from_bytes(model) {
            prop_assert!(model.layers().all(|(layer, stored)| layer.weights() == stored.weights.len()));
        }
    }

    #[test]
    fn any_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = Model::from_bytes(bytes);
    }
}
