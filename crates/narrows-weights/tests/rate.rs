//! Bytes against entropy.

mod common;

use common::{laplace, patches};
use narrows::{Dtype, Shape};
use narrows_weights::net::Model;
use narrows_weights::{
    Checkpoint, Contexts, Grid, Matrix, PackOptions, Plain, Settings, States, grids, pack, quantize,
};
use safetensors::Dtype as Stored;

#[test]
fn payloads_of_one_table_stay_close_to_the_entropy() {
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
                pack(&quantized, Dtype::F32, &shape, &PackOptions { states, ..PackOptions::default() })
                    .unwrap();
            let matrix = Matrix::read(packed).unwrap();
            let layout = matrix.layout();
            let bound = quantized.entropy() * quantized.values.len() as f64 / 8.0;
            let ratio = (layout.payload_bytes + layout.outlier_bytes) as f64 / bound;
            assert!(ratio <= 1.005, "{bins} bins, scale {scale}: {ratio}");
        }
    }
}

/// Payload over entropy of all tensors of a checkpoint together, packed for so many bits.
fn payload_over_entropy(checkpoint: &Checkpoint, bits: f64) -> f64 {
    let settings = Settings { bits, ..Settings::default() };
    let (mut payload, mut bound) = (0, 0.0);
    for (name, grid) in grids(checkpoint, &settings, None).unwrap() {
        let tensor = &checkpoint.tensors()[&name];
        let quantized = quantize(&name, tensor, &grid, 0.0, None).unwrap();
        let shape = Shape::new(&tensor.shape).unwrap();
        let packed = pack(&quantized, Dtype::F32, &shape, &PackOptions::default()).unwrap();
        let layout = Matrix::read(packed).unwrap().layout();
        payload += layout.payload_bytes + layout.outlier_bytes;
        bound += quantized.entropy() * quantized.values.len() as f64 / 8.0;
    }
    payload as f64 / bound
}

#[test]
fn payloads_of_the_demo_network_stay_near_the_entropy() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/fashion-resnet/model.onnx");
    let model = Model::open(path).unwrap();
    let tensors = model.layers().enumerate().map(|(index, (layer, weights))| {
        let shape = vec![layer.outputs(), layer.weights() / layer.outputs()];
        let data: Vec<u8> = weights.weights.iter().flat_map(|w| w.to_le_bytes()).collect();
        (format!("layer{index}.weight"), Plain { dtype: Stored::F32, shape, data: data.into() })
    });
    let checkpoint = Checkpoint::from_tensors(tensors.collect());
    for bits in [0.85, 1.6, 2.5, 4.0] {
        let ratio = payload_over_entropy(&checkpoint, bits);
        // First states and tables for few weights are a part of so small a network: 33 to 150 KB in ten tensors.
        assert!(ratio <= 1.006, "{bits} bits: {ratio}");
    }
}

#[test]
fn payloads_of_minilm_stay_near_the_entropy() {
    // The checkpoint is not shipped: NARROWS_MINILM names it.
    let Some(path) = std::env::var_os("NARROWS_MINILM") else { return };
    let checkpoint = Checkpoint::open(path).unwrap();
    for bits in [1.0, 2.5, 4.0] {
        let ratio = payload_over_entropy(&checkpoint, bits);
        assert!(ratio <= 1.005, "{bits} bits: {ratio}");
    }
}

#[test]
fn contexts_are_taken_where_zeros_lie_together_and_only_there() {
    let options = PackOptions { contexts: Contexts::Neighbour, ..PackOptions::default() };
    let shape = Shape::new(&[256, 576]).unwrap();
    for (quantized, contexts, most) in
        [(patches(256, 576, 5, 0.6, 3), 2, 0.97), (laplace(256, 576, 5, 0.3, 3), 1, 1.01)]
    {
        let matrix = Matrix::read(pack(&quantized, Dtype::F32, &shape, &options).unwrap()).unwrap();
        let layout = matrix.layout();
        assert_eq!(layout.contexts, Some(contexts));
        let bound = quantized.entropy() * quantized.values.len() as f64 / 8.0;
        let ratio = (layout.payload_bytes + layout.outlier_bytes) as f64 / bound;
        assert!(ratio < most, "{ratio}");
    }
}

#[test]
fn a_few_weights_on_many_bins_are_not_coded() {
    let quantized = laplace(32, 9, 255, 30.0, 3);
    let shape = Shape::new(&[32, 9]).unwrap();
    let matrix =
        Matrix::read(pack(&quantized, Dtype::F32, &shape, &PackOptions::default()).unwrap()).unwrap();
    let layout = matrix.layout();
    assert_eq!((layout.coder, layout.payload_bytes), ("packed", 1 + 32 * 9));
    assert_eq!(matrix.quantized().unwrap(), quantized);
}

#[test]
fn close_steps_take_few_bits() {
    let mut quantized = laplace(512, 64, 3, 0.3, 2);
    let steps: Vec<f32> =
        (0..512_u32).map(|row| f32::from_bits(0x3c10_0000 + ((row * 37 % 128) << 16))).collect();
    quantized.grid = Grid::new(steps, 3).unwrap();
    let shape = Shape::new(&[512, 64]).unwrap();
    let packed = pack(&quantized, Dtype::F32, &shape, &PackOptions::default()).unwrap();
    let matrix = Matrix::read(packed).unwrap();
    assert_eq!(matrix.quantized().unwrap(), quantized);
    assert!(matrix.layout().header_bytes < 512 + 80, "{} bytes", matrix.layout().header_bytes);
}
