//! Any bytes give a typed error or weights, and nothing else.

mod common;

use common::{Random, laplace, patches};
use narrows::machine::checksum;
use narrows::{Dtype, Path, Shape};
use narrows_weights::{Contexts, Matrix, PackOptions, PackedFile, States, pack};
use proptest::prelude::*;

/// Everything that can be done with a packed tensor, if it is a small one.
fn use_up(bytes: &[u8]) {
    for path in Path::ALL.into_iter().filter(|path| path.is_available()) {
        let Ok(matrix) = Matrix::read(bytes.to_vec()) else { return };
        let matrix = matrix.with_path(path);
        let (rows, columns) = (matrix.rows(), matrix.columns());
        if rows.saturating_mul(columns) > 1 << 20 {
            return;
        }
        let _ = matrix.layout();
        let _ = matrix.weights(0..rows);
        let _ = matrix.product(&vec![1.0; columns], &mut vec![0.0; rows]);
        let _ = matrix.product_int8(&vec![1; columns], 3, &mut vec![0; rows]);
        let _ = matrix.product_batch(&vec![1.0; 3 * columns], &mut vec![0.0; 3 * rows]);
    }
}

fn sealed(mut contents: Vec<u8>) -> Vec<u8> {
    let checksum = checksum(&contents);
    contents.extend(checksum.to_le_bytes());
    contents
}

fn packed(seed: u64) -> Vec<u8> {
    let mut random = Random(seed | 1);
    let (rows, columns) = (1 + random.below(40), 1 + random.below(150));
    let (bins, scale) = [(3, 0.5), (7, 1.0), (31, 0.6), (255, 20.0)][random.below(4)];
    let states = [States::Registers, States::Smallest, States::Exactly(8)][random.below(3)];
    let contexts = [Contexts::One, Contexts::Neighbour][random.below(2)];
    let options = PackOptions { states, contexts, chunk_rows: Some(1 + random.below(9)) };
    let weights = if contexts == Contexts::One { laplace } else { patches };
    let quantized = weights(rows, columns, bins, scale, ((seed | 1) >> random.below(2)).max(2));
    let shape = Shape::new(&[rows, columns]).unwrap();
    pack(&quantized, Dtype::F32, &shape, &options)
        .unwrap_or_else(|_| pack(&quantized, Dtype::F32, &shape, &PackOptions::default()).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn changed_packed_tensors_with_a_right_checksum_are_refused_or_decoded(
        seed in any::<u64>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut contents = packed(seed);
        contents.truncate(contents.len() - 4);
        for (at, value) in changes {
            // Most fields are in front.
            let length = contents.len();
            let at = at.index(length.min(if value % 2 == 0 { 40 } else { length }));
            contents[at] = value;
        }
        if let Some(cut) = cut {
            contents.truncate(cut.index(contents.len()) + 1);
        }
        use_up(&sealed(contents));
    }

    #[test]
    fn any_bytes_are_refused_or_decoded(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut contents = b"NRM\x01".to_vec();
        contents.extend(&bytes);
        use_up(&sealed(contents));
        let _ = PackedFile::read(bytes);
    }
}

#[test]
fn a_changed_byte_is_noticed_by_the_checksum() {
    let whole = packed(77);
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 4;
        assert!(Matrix::read(changed).is_err(), "byte {at}");
    }
}
