//! A sentence encoder runs packed, and what it is run on helps to pack it.

mod common;

use std::path::Path;

use common::Random;
use narrows_weights::net::Bert;
use narrows_weights::{
    Calibration, Checkpoint, Error, Mode, PackOptions, PackedFile, Settings, pack_checkpoint,
};
use safetensors::serialize_to_file;
use safetensors::tensor::{Dtype, TensorView};

const FEATURES: usize = 48;
const WIDE: usize = 96;
const WORDS: usize = 60;
const HEADS: usize = 4;

/// An encoder of two layers with random weights, some of them of more use than others.
fn encoder(path: &Path) {
    let mut random = Random(11);
    let mut tensors: Vec<(String, Vec<usize>, Vec<f32>)> = Vec::new();
    let mut matrix = |name: String, rows: usize, columns: usize, scale: f64| {
        let scale = scale / (columns as f64).sqrt();
        let values = (0..rows * columns).map(|_| random.laplace(scale) as f32).collect();
        tensors.push((name, vec![rows, columns], values));
    };
    let (f, w) = (FEATURES, WIDE);
    matrix("embeddings.word_embeddings.weight".into(), WORDS, f, 3.0);
    matrix("embeddings.position_embeddings.weight".into(), 16, f, 0.5);
    matrix("embeddings.token_type_embeddings.weight".into(), 2, f, 0.5);
    let mut vectors = vec![("embeddings.LayerNorm".to_owned(), f, true)];
    for layer in 0..2 {
        let name = |part: &str| format!("encoder.layer.{layer}.{part}");
        for (part, rows, columns, scale) in [
            ("attention.self.query", f, f, 1.0),
            ("attention.self.key", f, f, 1.0),
            ("attention.self.value", f, f, 0.3),
            ("attention.output.dense", f, f, 0.3),
            ("intermediate.dense", w, f, 1.0),
            ("output.dense", f, w, 1.0),
        ] {
            matrix(name(&format!("{part}.weight")), rows, columns, scale);
            vectors.push((name(part), rows, false));
        }
        vectors.push((name("attention.output.LayerNorm"), f, true));
        vectors.push((name("output.LayerNorm"), f, true));
    }
    matrix("pooler.dense.weight".into(), f, f, 1.0);
    for (name, length, norm) in vectors {
        if norm {
            tensors.push((format!("{name}.weight"), vec![length], vec![1.0; length]));
        }
        tensors.push((format!("{name}.bias"), vec![length], vec![0.01; length]));
    }
    let bytes: Vec<Vec<u8>> =
        tensors.iter().map(|(_, _, values)| values.iter().flat_map(|w| w.to_le_bytes()).collect()).collect();
    let views = tensors.iter().zip(&bytes).map(|((name, shape, _), bytes)| {
        (name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
    });
    serialize_to_file(views, None, path).unwrap();
}

fn sentences(seed: u64, count: usize) -> Vec<Vec<u32>> {
    let mut random = Random(seed);
    (0..count)
        .map(|_| (0..3 + random.below(10)).map(|_| random.below(WORDS) as u32).collect::<Vec<u32>>())
        .collect()
}

/// The mean of `1 - cos` between the embeddings of a packed file and of the checkpoint.
fn turn(checkpoint: &Checkpoint, packed: &Path) -> f32 {
    let dense = Bert::of_checkpoint(checkpoint, "", HEADS).unwrap();
    let packed = Bert::of(&PackedFile::open(packed).unwrap(), "", HEADS).unwrap();
    let all = sentences(99, 50);
    let turns = all.iter().map(|words| {
        let (a, b) = (dense.embed(words).unwrap(), packed.embed(words).unwrap());
        1.0 - a.iter().zip(&b).map(|(a, b)| a * b).sum::<f32>()
    });
    turns.sum::<f32>() / all.len() as f32
}

#[test]
fn embeddings_turn_less_if_sentences_say_what_matters() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    encoder(&path("dense.safetensors"));
    let checkpoint = Checkpoint::open(path("dense.safetensors")).unwrap();
    let settings = Settings { bits: 3.0, least_weights: 512, ..Settings::default() };
    let (runs, all) = (std::sync::atomic::AtomicUsize::new(0), std::sync::atomic::AtomicUsize::new(0));
    let found = Calibration::of_sentences(&checkpoint, &sentences(5, 60), HEADS, |done, count| {
        runs.fetch_max(done, std::sync::atomic::Ordering::Relaxed);
        all.store(count, std::sync::atomic::Ordering::Relaxed);
    })
    .unwrap();
    assert_eq!(runs.into_inner(), all.into_inner(), "progress comes to its end");
    let mut turns = Vec::new();
    let mut bytes = Vec::new();
    for calibration in [None, Some(found)] {
        let mode = Mode::Quantize(settings.clone(), calibration);
        let packed = path("packed.safetensors");
        bytes.push(
            pack_checkpoint(&checkpoint, &packed, &mode, &PackOptions::default(), |_| {}).unwrap().bytes
                as f64,
        );
        turns.push(turn(&checkpoint, &packed));
    }
    assert!(turns[1] < 0.8 * turns[0], "{turns:?}");
    assert!(bytes[1] < 1.02 * bytes[0], "{bytes:?}");
}

#[test]
fn what_no_encoder_can_be_run_on_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dense.safetensors");
    encoder(&path);
    let checkpoint = Checkpoint::open(&path).unwrap();
    let run = |sentences: &[Vec<u32>], heads| {
        Calibration::of_sentences(&checkpoint, sentences, heads, |_, _| {}).unwrap_err()
    };
    assert!(matches!(run(&[], HEADS), Error::Shape { what: "number of sentences", .. }));
    assert!(matches!(run(&[vec![1, 2]], 5), Error::Shape { what: "number of heads", .. }));
    let unknown = run(&[vec![1, 900]], HEADS);
    assert!(unknown.to_string().contains("row"), "{unknown}");
    let data = [0; 16];
    let view = TensorView::new(Dtype::F32, vec![2, 2], &data).unwrap();
    let other = folder.path().join("other.safetensors");
    serialize_to_file([("other.weight", view)], None, &other).unwrap();
    let other = Checkpoint::open(&other).unwrap();
    let none = Calibration::of_sentences(&other, &[vec![1]], HEADS, |_, _| {}).unwrap_err();
    assert!(none.to_string().contains("no sentence encoder"), "{none}");
}
