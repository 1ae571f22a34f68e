//! Packed files: round trips, other readers, changed bytes.

mod common;

use std::collections::HashMap;
use std::path::Path;

use common::Random;
use narrows_weights::{
    Checkpoint, Counted, Error, Mode, PackOptions, PackedFile, Scope, Settings, Tensor, Writer,
    pack_checkpoint, unpack_file,
};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};

fn bytes(values: impl IntoIterator<Item = f32>) -> Vec<u8> {
    values.into_iter().flat_map(f32::to_le_bytes).collect()
}

/// A checkpoint of all kinds of tensors.
fn checkpoint(path: &Path, texts: Option<HashMap<String, String>>, weights: &[f32]) {
    let mut random = Random(5);
    let half: Vec<u8> =
        (0..64 * 40).flat_map(|_| half::bf16::from_f32(random.laplace(0.05) as f32).to_le_bytes()).collect();
    let (weights, bias, ids) = (bytes(weights.iter().copied()), bytes([0.5, -1.0, f32::NAN]), [1_u8; 24]);
    let view = |dtype, shape: &[usize], data| TensorView::new(dtype, shape.to_vec(), data).unwrap();
    let tensors = vec![
        ("layer.weight", view(Dtype::F32, &[48, 12, 5], &weights)),
        ("layer.bias", view(Dtype::F32, &[3], &bias)),
        ("other.weight", view(Dtype::BF16, &[64, 40], &half)),
        ("ids", view(Dtype::I64, &[3], &ids)),
        ("empty", view(Dtype::F16, &[0, 4], &[])),
    ];
    serialize_to_file(tensors, texts, path).unwrap();
}

fn weights() -> Vec<f32> {
    let mut random = Random(9);
    (0..48 * 60).map(|_| random.laplace(0.1) as f32).collect()
}

fn quantize(bits: f64) -> Mode {
    Mode::Quantize(Settings { bits, least_weights: 100, ..Settings::default() }, None)
}

#[test]
fn a_packed_file_is_a_safetensors_file_and_unpacks_to_what_was_quantised() {
    let folder = tempfile::tempdir().unwrap();
    let [dense, packed, back] =
        ["a", "b", "c"].map(|name| folder.path().join(name).with_extension("safetensors"));
    let texts = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    checkpoint(&dense, Some(texts.clone()), &weights());
    let source = Checkpoint::open(&dense).unwrap();
    for scope in [Scope::Tensor, Scope::Row] {
        for lambda in [0.0, 0.1] {
            let settings = Settings { bits: 3.0, least_weights: 100, scope, lambda, ..Settings::default() };
            let mode = Mode::Quantize(settings, None);
            let outcome = pack_checkpoint(&source, &packed, &mode, &PackOptions::default(), |_| {}).unwrap();
            let reports = outcome.tensors;
            let bits: f64 = reports.iter().filter_map(|r| r.entropy.map(|h| h * r.elements as f64)).sum();
            assert!((bits / (48.0 * 60.0 + 64.0 * 40.0) - 3.0).abs() < 0.05, "{scope:?} {lambda}: {bits}");
        }
    }

    let file = std::fs::read(&packed).unwrap();
    let others = SafeTensors::deserialize(&file).unwrap();
    assert_eq!(others.tensor("layer.weight").unwrap().dtype(), Dtype::U8);
    assert_eq!(others.tensor("ids").unwrap().dtype(), Dtype::I64);
    let opened = PackedFile::open(&packed).unwrap();
    assert_eq!(opened.texts(), texts);
    assert!(matches!(opened.tensor("layer.bias").unwrap(), Tensor::Plain(_)));
    let matrix = opened.matrix("layer.weight").unwrap();
    assert_eq!(matrix.shape().dims(), [48, 12, 5]);

    unpack_file(&opened, &back, |_| {}).unwrap();
    let back = Checkpoint::open(&back).unwrap();
    let source = Checkpoint::open(&dense).unwrap();
    for (name, tensor) in source.tensors() {
        let found = &back.tensors()[name];
        assert_eq!((found.dtype, &found.shape), (tensor.dtype, &tensor.shape), "{name}");
        if !name.ends_with("weight") {
            assert_eq!(&found.data[..], &tensor.data[..], "{name}");
        }
    }
    let mut unpacked = Vec::new();
    back.tensors()["layer.weight"].read_f32(0..48 * 60, &mut unpacked);
    assert_eq!(unpacked, matrix.weights(0..48).unwrap());
    let largest = matrix.grid().steps().iter().copied().fold(0.0, f32::max);
    let close = unpacked.iter().zip(weights()).all(|(a, b)| (a - b).abs() <= 3.0 * largest);
    assert!(close, "no weight is far from where it was");
}

#[test]
fn a_file_has_the_bits_a_weight_that_it_is_asked_for_or_cannot_be() {
    let folder = tempfile::tempdir().unwrap();
    let [dense, packed] = ["a", "b"].map(|name| folder.path().join(name).with_extension("safetensors"));
    let mut random = Random(21);
    let big = bytes((0..300 * 400).map(|_| random.laplace(0.1) as f32));
    let kept = bytes((0..50 * 64).map(|_| random.laplace(0.1) as f32));
    let bias = bytes([0.5; 300]);
    let tensors = [
        ("big.weight", TensorView::new(Dtype::F32, vec![300, 400], &big).unwrap()),
        ("kept.weight", TensorView::new(Dtype::F32, vec![50, 64], &kept).unwrap()),
        ("big.bias", TensorView::new(Dtype::F32, vec![300], &bias).unwrap()),
    ];
    serialize_to_file(tensors, None, &dense).unwrap();
    let source = Checkpoint::open(&dense).unwrap();
    let run = |bits: f64, keep: &[&str]| {
        let keep = keep.iter().map(|&name| name.to_owned()).collect();
        let settings = Settings { bits, keep, counted: Counted::File, ..Settings::default() };
        let mut told = Vec::new();
        let mode = Mode::Quantize(settings, None);
        let outcome = pack_checkpoint(&source, &packed, &mode, &PackOptions::default(), |d| told.push(d))?;
        assert!(told.is_sorted() && told.last() == Some(&1.0));
        assert_eq!(outcome.bytes, std::fs::metadata(&packed).unwrap().len());
        Ok::<f64, Error>(8.0 * outcome.bytes as f64)
    };
    for bits in [0.8, 2.0, 4.0, 6.5] {
        let taken = run(bits, &[]).unwrap() / (120_000.0 + 3200.0 + 300.0);
        assert!((0.99 * bits..=bits).contains(&taken), "{taken} bits where {bits} were asked for");
        let taken = (run(bits, &["kept"]).unwrap() - 32.0 * 3200.0) / (120_000.0 + 300.0);
        assert!((0.99 * bits..=bits).contains(&taken), "{taken} bits where {bits} were asked for");
    }
    std::fs::remove_file(&packed).unwrap();
    let refused = run(0.05, &[]).unwrap_err();
    assert!(matches!(refused, Error::TooFewBits { least, .. } if least > 0.08), "{refused}");
    assert!(!packed.exists());
}

#[test]
fn a_lossless_file_gives_every_bit_back() {
    let folder = tempfile::tempdir().unwrap();
    let [dense, packed, back] =
        ["a", "b", "c"].map(|name| folder.path().join(name).with_extension("safetensors"));
    checkpoint(&dense, None, &weights());
    let source = Checkpoint::open(&dense).unwrap();
    pack_checkpoint(&source, &packed, &Mode::Lossless, &PackOptions::default(), |_| {}).unwrap();
    unpack_file(&PackedFile::open(&packed).unwrap(), &back, |_| {}).unwrap();
    let back = Checkpoint::open(&back).unwrap();
    for (name, tensor) in source.tensors() {
        assert_eq!(
            (&back.tensors()[name].data[..], back.tensors()[name].dtype),
            (&tensor.data[..], tensor.dtype)
        );
    }
    let length = |path| std::fs::metadata(path).unwrap().len();
    assert!(length(&packed) < length(&dense));
}

#[test]
fn the_steps_of_a_trainer_are_kept_exactly() {
    let folder = tempfile::tempdir().unwrap();
    let [dense, packed] = ["a", "b"].map(|name| folder.path().join(name).with_extension("safetensors"));
    let steps: Vec<f32> = (0..48).map(|row| 0.013 + row as f32 * 0.000_7).collect();
    let mut random = Random(11);
    let on_grid: Vec<f32> =
        (0..48 * 60).map(|at| random.laplace(0.8).round().clamp(-3.0, 3.0) as f32 * steps[at / 60]).collect();
    let text = format!("{{\"layer.weight\": {{\"step\": {steps:?}, \"bins\": 7}}}}");
    checkpoint(&dense, Some(HashMap::from([("narrows.steps".to_owned(), text)])), &on_grid);
    // RDO would move weights: what is trained stays.
    let mode = Mode::Quantize(Settings { lambda: 0.2, bits: 1.0, ..Settings::default() }, None);
    pack_checkpoint(&Checkpoint::open(&dense).unwrap(), &packed, &mode, &PackOptions::default(), |_| {})
        .unwrap();
    let matrix = PackedFile::open(&packed).unwrap().matrix("layer.weight").unwrap();
    assert_eq!(matrix.weights(0..48).unwrap(), on_grid);
    assert_eq!(matrix.grid().bins(), 7);
}

#[test]
fn steps_that_do_not_fit_are_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let [dense, packed] = ["a", "b"].map(|name| folder.path().join(name).with_extension("safetensors"));
    for text in [
        "{",
        "{\"layer.weight\": {\"step\": 0.1}}",
        "{\"nowhere\": {\"step\": 0.1, \"bins\": 3}}",
        "{\"layer.weight\": {\"step\": 0.1, \"bins\": 4}}",
        "{\"layer.weight\": {\"step\": [0.1, 0.2], \"bins\": 3}}",
        "{\"layer.weight\": {\"step\": -1, \"bins\": 3}}",
        "{\"ids\": {\"step\": 1, \"bins\": 3}}",
        "{\"layer.weight\": {\"step\": 0.1, \"bins\": 70001}}",
    ] {
        checkpoint(&dense, Some(HashMap::from([("narrows.steps".to_owned(), text.to_owned())])), &weights());
        let source = Checkpoint::open(&dense).unwrap();
        let result = pack_checkpoint(&source, &packed, &quantize(2.0), &PackOptions::default(), |_| {});
        assert!(result.is_err(), "{text}");
        assert!(!packed.exists());
    }
}

#[test]
fn checkpoints_in_several_files_are_packed_as_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    checkpoint(&path("one.safetensors"), None, &weights());
    let data = bytes(weights());
    let view = TensorView::new(Dtype::F32, vec![60, 48], &data).unwrap();
    serialize_to_file([("more.weight", view)], None, &path("two.safetensors")).unwrap();
    let index = r#"{"metadata": {}, "weight_map": {"layer.weight": "one.safetensors", "more.weight": "two.safetensors"}}"#;
    std::fs::write(path("model.safetensors.index.json"), index).unwrap();
    let source = Checkpoint::open(path("model.safetensors.index.json")).unwrap();
    assert_eq!(source.tensors().keys().collect::<Vec<_>>(), ["layer.weight", "more.weight"]);
    pack_checkpoint(&source, &path("packed.safetensors"), &quantize(2.0), &PackOptions::default(), |_| {})
        .unwrap();
    let packed = PackedFile::open(path("packed.safetensors")).unwrap();
    assert_eq!(packed.matrix("more.weight").unwrap().rows(), 60);
    for wrong in [
        r#"{"weight_map": {"x": "../one.safetensors"}}"#,
        r#"{"weight_map": {"x": "one.safetensors"}}"#,
        r#"{"weight_map": {"x": "none.safetensors"}}"#,
        "[]",
        "",
    ] {
        std::fs::write(path("model.safetensors.index.json"), wrong).unwrap();
        assert!(Checkpoint::open(path("model.safetensors.index.json")).is_err(), "{wrong}");
    }
}

/// A small packed file with every kind of tensor.
fn small() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let [dense, packed] = ["a", "b"].map(|name| folder.path().join(name).with_extension("safetensors"));
    let data = bytes(weights().into_iter().take(160));
    let bias = bytes([1.0, 2.0]);
    let view = TensorView::new(Dtype::F32, vec![8, 20], &data).unwrap();
    let vector = TensorView::new(Dtype::F32, vec![2], &bias).unwrap();
    serialize_to_file([("w", view), ("b", vector)], None, &dense).unwrap();
    pack_checkpoint(
        &Checkpoint::open(&dense).unwrap(),
        &packed,
        &quantize(2.0),
        &PackOptions::default(),
        |_| {},
    )
    .unwrap();
    std::fs::read(&packed).unwrap()
}

/// Everything that the file holds, decoded.
fn everything(bytes: Vec<u8>) -> Result<Vec<(String, Vec<u8>)>, Error> {
    let file = PackedFile::read(bytes)?;
    let all = file.names().into_iter().map(|name| {
        let mut elements = Vec::new();
        file.tensor(&name)?.unpack(|bytes| {
            elements.extend_from_slice(bytes);
            Ok(())
        })?;
        Ok((name, elements))
    });
    all.collect()
}

#[test]
fn a_changed_byte_anywhere_is_noticed() {
    let file = small();
    assert_eq!(everything(file.clone()).unwrap().len(), 2);
    for at in 0..file.len() {
        for flip in [1, 0x20, 0x80, 0xff] {
            let mut changed = file.clone();
            changed[at] ^= flip;
            assert!(everything(changed).is_err(), "byte {at} with {flip:#x}");
        }
    }
}

#[test]
fn a_file_that_is_cut_off_is_noticed() {
    let file = small();
    for length in 0..file.len() {
        assert!(everything(file[..length].to_vec()).is_err(), "{length} bytes");
    }
    let mut longer = file;
    longer.push(0);
    assert!(everything(longer).is_err());
}

#[test]
fn a_writer_that_is_dropped_leaves_the_file_that_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    std::fs::write(&path, b"old").unwrap();
    let mut writer = Writer::new(&path);
    writer.plain("a", Dtype::U8, &[2], &[1, 2]).unwrap();
    drop(writer);
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
}
