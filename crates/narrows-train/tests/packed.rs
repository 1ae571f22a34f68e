//! Layers of packed weights on burn's tensors do what burn does with the same weights unpacked.

use std::collections::BTreeMap;

use burn_tensor::module::conv2d;
use burn_tensor::ops::ConvOptions;
use burn_tensor::{Device, Tensor, TensorData};
use narrows_train::{Convolution, PackedConv2d, PackedLinear, tensor_data};
use narrows_weights::{
    Checkpoint, Mode, PackOptions, PackedFile, Plain, Settings, Tensor as Stored, pack_checkpoint,
};

fn wave(count: usize, of: f32) -> Vec<f32> {
    (0..count).map(|i| ((i as f32 * of).sin() * 0.7).powi(3)).collect()
}

/// A linear layer of 24 inputs and 40 outputs, and a convolution of 3 and 8 channels.
fn file() -> PackedFile {
    let plain = |shape: &[usize], of: f32| Plain {
        dtype: safetensors::Dtype::F32,
        shape: shape.to_vec(),
        data: wave(shape.iter().product(), of)
            .iter()
            .flat_map(|x| x.to_le_bytes())
            .collect::<Vec<u8>>()
            .into(),
    };
    let tensors = [
        ("linear.weight", plain(&[40, 24], 0.37)),
        ("linear.bias", plain(&[40], 0.9)),
        ("conv.weight", plain(&[8, 3, 3, 3], 0.51)),
        ("conv.bias", plain(&[8], 1.7)),
    ];
    let tensors: BTreeMap<_, _> = tensors.into_iter().map(|(name, plain)| (name.to_owned(), plain)).collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("packed.safetensors");
    let mode = Mode::Quantize(Settings { least_weights: 100, ..Settings::default() }, None);
    pack_checkpoint(&Checkpoint::from_tensors(tensors), &path, &mode, &PackOptions::default(), |_| {})
        .unwrap();
    PackedFile::read(std::fs::read(path).unwrap()).unwrap()
}

fn unpacked<const D: usize>(file: &PackedFile, name: &str, device: &Device) -> Tensor<D> {
    Tensor::from_data(tensor_data(file, name).unwrap(), device)
}

fn close<const D: usize>(a: Tensor<D>, b: Tensor<D>) {
    assert_eq!(a.dims(), b.dims());
    let difference: f32 = (a - b).abs().max().into_scalar();
    assert!(difference < 1e-4, "{difference}");
}

#[test]
fn a_packed_linear_layer_is_burns() {
    let (file, device) = (file(), Device::flex());
    assert!(matches!(file.tensor("linear.weight").unwrap(), Stored::Packed(_)));
    let layer = PackedLinear::of(&file, "linear").unwrap();
    let input = Tensor::<3>::from_data(TensorData::new(wave(2 * 5 * 24, 0.13), [2, 5, 24]), &device);
    let weights = unpacked::<2>(&file, "linear.weight", &device).transpose().reshape([1, 24, 40]);
    let bias = unpacked::<1>(&file, "linear.bias", &device).reshape([1, 1, 40]);
    close(layer.forward(input.clone()).unwrap(), input.matmul(weights.repeat_dim(0, 2)) + bias);
    let wrong = Tensor::<1>::from_data(TensorData::new(wave(23, 0.1), [23]), &device);
    assert!(layer.forward(wrong).is_err());
    assert!(PackedLinear::of(&file, "other").is_err());
}

#[test]
fn a_packed_convolution_is_burns() {
    let (file, device) = (file(), Device::flex());
    let window = Convolution { kernel: [3, 3], stride: [2, 1], padding: [1, 0] };
    let layer = PackedConv2d::of(&file, "conv", window).unwrap();
    let images = Tensor::<4>::from_data(TensorData::new(wave(2 * 3 * 9 * 7, 0.21), [2, 3, 9, 7]), &device);
    let options = ConvOptions::new(window.stride, window.padding, [1, 1], 1);
    let weights = unpacked::<4>(&file, "conv.weight", &device);
    let expected = conv2d(images.clone(), weights, Some(unpacked(&file, "conv.bias", &device)), options);
    close(layer.forward(images.clone()).unwrap(), expected);
    assert!(layer.forward(images.slice([0..2, 0..2, 0..9, 0..7])).is_err());
    assert!(PackedConv2d::of(&file, "conv", Convolution { kernel: [5, 3], ..window }).is_err());
}
