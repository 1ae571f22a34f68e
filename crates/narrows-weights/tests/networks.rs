//! Layers from packed weights do what the same layers do with the same weights dense.

mod common;

use common::{Random, laplace};
use narrows::{Dtype, Shape};
use narrows_weights::net::{Conv2d, Convolution, Linear, Weights};
use narrows_weights::{Matrix, PackOptions, pack};

fn packed_and_dense(rows: usize, columns: usize) -> (Weights, Weights, Vec<f32>) {
    let quantized = laplace(rows, columns, 7, 1.0, 6);
    let shape = Shape::new(&[rows, columns]).unwrap();
    let matrix =
        Matrix::read(pack(&quantized, Dtype::F32, &shape, &PackOptions::default()).unwrap()).unwrap();
    let weights = matrix.weights(0..rows).unwrap();
    let dense = Weights::dense(&weights, rows, columns).unwrap();
    (Weights::Packed(Box::new(matrix)), dense, weights)
}

fn close(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-4 * (1.0 + b.abs()))
}

#[test]
fn a_linear_layer_is_the_same_packed_and_dense() {
    let (packed, dense, _) = packed_and_dense(70, 130);
    let mut random = Random(3);
    let bias: Vec<f32> = (0..70).map(|_| random.laplace(0.1) as f32).collect();
    let x: Vec<f32> = (0..130 * 9).map(|_| random.laplace(1.0) as f32).collect();
    assert_eq!(packed.row(3).unwrap(), dense.row(3).unwrap());
    assert!(packed.row(70).is_err() && dense.row(70).is_err());
    let [packed, dense] = [packed, dense].map(|weights| Linear::new(weights, bias.clone()).unwrap());
    assert!(close(&packed.run(&x).unwrap(), &dense.run(&x).unwrap()));
}

#[test]
fn a_convolution_is_the_sum_over_its_kernel() {
    let mut random = Random(5);
    for (kernel, stride, padding) in [(1, 1, 0), (3, 1, 1), (3, 2, 1), (5, 3, 0)] {
        let window = Convolution { kernel: [kernel; 2], stride: [stride; 2], padding: [padding; 2] };
        let (outputs, inputs, height, width) = (6, 4, 9, 11);
        let (packed, _, weights) = packed_and_dense(outputs, inputs * kernel * kernel);
        let bias: Vec<f32> = (0..outputs).map(|i| i as f32).collect();
        let image: Vec<f32> = (0..inputs * height * width).map(|_| random.laplace(1.0) as f32).collect();
        let conv = Conv2d::new(packed, bias, window).unwrap();
        let (found, [rows, columns]) = conv.run(&image, [height, width]).unwrap();
        let mut expected = Vec::new();
        for output in 0..outputs {
            for position in 0..rows * columns {
                let mut sum = output as f32;
                for at in 0..inputs * kernel * kernel {
                    let (input, dy, dx) = (at / (kernel * kernel), at / kernel % kernel, at % kernel);
                    let y = (position / columns * stride + dy).checked_sub(padding);
                    let x = (position % columns * stride + dx).checked_sub(padding);
                    if let (Some(y @ 0..9), Some(x @ 0..11)) = (y, x) {
                        let weight = weights[output * inputs * kernel * kernel + at];
                        sum += weight * image[(input * height + y) * width + x];
                    }
                }
                expected.push(sum);
            }
        }
        assert!(close(&found, &expected), "kernel {kernel}, stride {stride}, padding {padding}");
        assert!(conv.run(&image[1..], [height, width]).is_err());
    }
}
