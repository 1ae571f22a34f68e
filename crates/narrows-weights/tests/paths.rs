//! Every path gives what the reference gives, bit for bit.

mod common;

use common::{Random, laplace, patches};
use narrows::{Dtype, Path, Shape};
use narrows_weights::{Contexts, Matrix, PackOptions, Quantized, States, pack};

fn paths() -> impl Iterator<Item = Path> {
    Path::ALL.into_iter().filter(|path| path.is_available())
}

fn cases() -> Vec<(Quantized, PackOptions)> {
    let mut cases = Vec::new();
    let mut seed = 1;
    for (rows, columns) in
        [(1, 1), (3, 5), (7, 64), (16, 9), (33, 65), (40, 200), (64, 576), (130, 128), (9, 1000)]
    {
        for (bins, scale) in [(3, 0.4), (5, 0.9), (15, 2.0), (31, 1.2), (255, 12.0), (3, 0.05)] {
            for states in [6, 7, 8, 10] {
                for chunk_rows in [None, Some(1), Some(3), Some(16)] {
                    seed += 1;
                    let states = States::Exactly(states);
                    cases.push((
                        laplace(rows, columns, bins, scale, seed),
                        PackOptions { states, chunk_rows, ..PackOptions::default() },
                    ));
                }
            }
            cases.push((laplace(rows, columns, bins, scale, seed), PackOptions::default()));
            for chunk_rows in [None, Some(1), Some(5)] {
                let options =
                    PackOptions { contexts: Contexts::Neighbour, chunk_rows, ..PackOptions::default() };
                cases.push((patches(rows, columns, bins, scale, seed), options));
            }
        }
    }
    cases
}

#[test]
fn values_rows_and_products_are_the_same_on_every_path() {
    let mut random = Random(7);
    let mut in_contexts = 0;
    for (quantized, options) in cases() {
        let Quantized { rows, columns, .. } = quantized;
        let shape = Shape::new(&[rows, columns]).unwrap();
        let packed = pack(&quantized, Dtype::F32, &shape, &options).unwrap();
        let x: Vec<f32> = (0..columns * 10).map(|_| random.laplace(1.0) as f32).collect();
        let x8: Vec<u8> = (0..columns).map(|_| random.bits() as u8).collect();
        let zero = if rows % 2 == 0 { 0 } else { 117 };
        let mut expected = None;
        for path in paths() {
            let matrix = Matrix::read(packed.clone()).unwrap().with_path(path);
            in_contexts += usize::from(matrix.layout().contexts == Some(2));
            assert_eq!(matrix.quantized().unwrap(), quantized, "{path:?} {options:?} {:?}", matrix.layout());
            let some = rows / 3..rows - rows / 4;
            let part = &quantized.values[some.start * columns..some.end * columns];
            assert_eq!(matrix.values(some).unwrap(), part);
            let (mut y, mut y8, mut batch) = (vec![0.0; rows], vec![0; rows], vec![0.0; rows * 10]);
            matrix.product(&x[..columns], &mut y).unwrap();
            matrix.product_int8(&x8, zero, &mut y8).unwrap();
            matrix.product_batch(&x, &mut batch).unwrap();
            assert_eq!(y, batch[..rows], "a batch is its inputs one by one");
            let bits = |y: &[f32]| y.iter().map(|y| y.to_bits()).collect::<Vec<_>>();
            let found = (bits(&y), y8, bits(&batch));
            match &expected {
                None => expected = Some(found),
                Some(expected) => assert_eq!(&found, expected, "{path:?} {options:?} {:?}", matrix.layout()),
            }
            let (mut y, mut batch) = (vec![0.0; rows], vec![0.0; rows * 10]);
            let matrix = matrix.with_threads(3);
            matrix.product(&x[..columns], &mut y).unwrap();
            matrix.product_batch(&x, &mut batch).unwrap();
            assert_eq!(
                (&bits(&y), &bits(&batch)),
                expected.as_ref().map(|(y, _, batch)| (y, batch)).unwrap()
            );
        }
    }
    assert!(in_contexts > 20, "there was something to find in contexts: {in_contexts}");
}

#[test]
fn products_are_those_of_plain_sums() {
    for seed in 1..30 {
        let quantized = laplace(37, 300, 7, 1.0, seed);
        let shape = Shape::new(&[37, 10, 30]).unwrap();
        let matrix =
            Matrix::read(pack(&quantized, Dtype::F16, &shape, &PackOptions::default()).unwrap()).unwrap();
        assert_eq!((matrix.shape(), matrix.dtype()), (&shape, Dtype::F16));
        let mut random = Random(seed);
        let x: Vec<f32> = (0..300).map(|_| random.laplace(1.0) as f32).collect();
        let x8: Vec<u8> = (0..300).map(|_| random.bits() as u8).collect();
        let (mut y, mut y8) = (vec![0.0; 37], vec![0; 37]);
        matrix.product(&x, &mut y).unwrap();
        matrix.product_int8(&x8, 9, &mut y8).unwrap();
        for row in 0..37 {
            let values = &quantized.values[row * 300..][..300];
            let exact: f64 = values.iter().zip(&x).map(|(&q, &x)| f64::from(q) * f64::from(x)).sum();
            let exact = exact * f64::from(quantized.grid.step(row));
            assert!((f64::from(y[row]) - exact).abs() <= 1e-5 * (1.0 + exact.abs()));
            let exact: i32 = values.iter().zip(&x8).map(|(&q, &x)| i32::from(q) * (i32::from(x) - 9)).sum();
            assert_eq!(y8[row], exact);
        }
    }
}
