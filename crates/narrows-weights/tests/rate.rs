//! Bytes against entropy.

mod common;

use common::laplace;
use narrows::{Dtype, Shape};
use narrows_weights::{Matrix, PackOptions, States, pack};

#[test]
fn payloads_stay_within_half_a_percent_of_the_entropy() {
    for (bins, scale) in [
        (3, 0.25),
        (3, 0.45),
        (5, 0.5),
        (7, 0.5),
        (7, 1.0),
        (15, 1.0),
        (15, 1.8),
        (15, 2.5),
        (31, 3.0),
        (63, 5.0),
        (255, 20.0),
    ] {
        let quantized = laplace(512, 2048, bins, scale, 3);
        let shape = Shape::new(&[512, 2048]).unwrap();
        for states in [States::Registers, States::Smallest] {
            let packed =
                pack(&quantized, Dtype::F32, &shape, &PackOptions { states, chunk_rows: None }).unwrap();
            let matrix = Matrix::read(packed).unwrap();
            let layout = matrix.layout();
            let bound = quantized.entropy() * quantized.values.len() as f64 / 8.0;
            let ratio = (layout.payload_bytes + layout.outlier_bytes) as f64 / bound;
            // Streams of rANS buy chunks for up to 1 %.
            let bound = if layout.coder == "rans" { 1.0125 } else { 1.005 };
            assert!(ratio <= bound, "{bins} bins, scale {scale}: {ratio}");
        }
    }
}
