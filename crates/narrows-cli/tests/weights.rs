//! Packed weights through the program: checkpoints in and out, what is said of files that will not do, and being killed.

mod common;

use std::fs;
use std::time::Duration;

use common::*;
use safetensors::Dtype;
use safetensors::tensor::{TensorView, serialize};

/// A checkpoint of one matrix (rows x 96) that is smooth and peaked, and a bias of two.
fn checkpoint(rows: usize) -> Vec<u8> {
    checkpoint_with(rows, &[0.25, -1.5])
}

/// The same with another bias.
fn checkpoint_with(rows: usize, bias: &[f32]) -> Vec<u8> {
    let wave = |i: usize| (i as f32 * 0.713).sin() * (i as f32 * 1.91).cos() * 0.1;
    let weights: Vec<u8> = (0..rows * 96).flat_map(|i| wave(i).powi(3).to_le_bytes()).collect();
    let (biases, bias): (_, Vec<u8>) = (bias.len(), bias.iter().flat_map(|x| x.to_le_bytes()).collect());
    let weights = TensorView::new(Dtype::F32, vec![rows, 96], &weights).unwrap();
    let bias = TensorView::new(Dtype::F32, vec![biases], &bias).unwrap();
    serialize([("layer.weight", weights), ("layer.bias", bias)], None).unwrap()
}

#[test]
fn a_checkpoint_is_packed_shown_and_unpacked() {
    let folder = Folder::new("pack");
    folder.write("model.safetensors", &checkpoint(64));
    let report = folder.json(&["pack", "model.safetensors", "--bits", "2.5"]);
    assert_eq!(report["file"], "model.packed.safetensors");
    // Every byte of the file is counted.
    let length = fs::metadata(folder.path("model.packed.safetensors")).unwrap().len();
    let bits = 8.0 * length as f64 / (64.0 * 96.0 + 2.0);
    assert!((2.45..=2.5).contains(&bits), "{bits}");
    assert!((report["bits_per_weight"].as_f64().unwrap() - bits).abs() < 1e-9);
    assert_eq!(report["tensors"][1]["kind"], "packed");
    assert_eq!(report["tensors"][0]["kind"], "plain");

    let shown = folder.json(&["inspect", "model.packed.safetensors", "--chart", "layers.svg"]);
    let layers = shown["packed"][0]["layers"].as_array().unwrap();
    let packed = layers.iter().find(|layer| layer["name"] == "layer.weight").unwrap();
    assert_eq!(packed["shape"], serde_json::json!([64, 96]));
    assert_eq!(packed["packed"]["coder"], "tans");
    assert!(fs::read_to_string(folder.path("layers.svg")).unwrap().contains("layer.weight"));
    let said = text(&folder.succeed(&["inspect", "model.packed.safetensors"]).stdout);
    assert!(said.contains("all checksums are right"), "{said}");

    folder.fail(USAGE, &["unpack", "model.packed.safetensors"]);
    folder.succeed(&["unpack", "model.packed.safetensors", "-o", "back.safetensors"]);
    let back = fs::read(folder.path("back.safetensors")).unwrap();
    let back = safetensors::SafeTensors::deserialize(&back).unwrap();
    assert_eq!(back.tensor("layer.weight").unwrap().shape(), [64, 96]);
}

#[test]
fn lossless_packing_gives_the_checkpoint_back() {
    let folder = Folder::new("pack-lossless");
    folder.write("model.safetensors", &checkpoint(64));
    folder.succeed(&["pack", "model.safetensors", "--lossless", "-o", "packed.safetensors"]);
    folder.succeed(&["unpack", "packed.safetensors", "-o", "back.safetensors"]);
    let [before, after] =
        ["model.safetensors", "back.safetensors"].map(|name| fs::read(folder.path(name)).unwrap());
    let [before, after] =
        [&before, &after].map(|bytes| safetensors::SafeTensors::deserialize(bytes).unwrap());
    for name in ["layer.weight", "layer.bias"] {
        assert_eq!(before.tensor(name).unwrap().data(), after.tensor(name).unwrap().data());
    }
}

#[test]
fn what_cannot_be_packed_or_unpacked_is_said() {
    let folder = Folder::new("pack-fail");
    folder.write("model.safetensors", &checkpoint(64));
    folder.write("noise.safetensors", b"no such thing");
    folder.fail(NO_INPUT, &["pack", "none.safetensors"]);
    folder.fail(DATA, &["pack", "noise.safetensors"]);
    folder.fail(USAGE, &["pack", "model.safetensors", "--bits", "0"]);
    folder.fail(USAGE, &["pack", "model.safetensors", "--bins", "4"]);
    let said = folder.fail(USAGE, &["pack", "model.safetensors", "--bins", "7", "--bits", "3"]);
    assert!(said.contains("nine tenths"), "{said}");
    let said = folder.fail(USAGE, &["pack", "model.safetensors", "--bits", "0.2"]);
    assert!(said.contains("too few") && said.contains("--bits"), "{said}");
    // Nobody asked for bits that a file of little more than a bias cannot have.
    folder.write("tiny.safetensors", &checkpoint_with(11, &[0.5; 300]));
    let said = text(&folder.succeed(&["pack", "tiny.safetensors"]).stderr);
    assert!(said.contains("not the file"), "{said}");
    folder.fail(DATA, &["unpack", "model.safetensors", "-o", "x.safetensors"]);
    folder.succeed(&["pack", "model.safetensors", "-q"]);
    let said = folder.fail(USAGE, &["pack", "model.packed.safetensors", "-o", "twice.safetensors"]);
    assert!(said.contains("packed already"), "{said}");
    folder.fail(USAGE, &["inspect", "model.safetensors", "--chart", "x.svg"]);
    let mut broken = fs::read(folder.path("model.packed.safetensors")).unwrap();
    let last = broken.len() - 9;
    broken[last] ^= 1;
    folder.write("broken.safetensors", &broken);
    for args in
        [vec!["inspect", "broken.safetensors"], vec!["unpack", "broken.safetensors", "-o", "x.safetensors"]]
    {
        let said = folder.fail(DATA, &args);
        assert!(said.contains("layer.weight") && said.contains("checksum"), "{said}");
    }
    assert!(!folder.path("x.safetensors").exists());
}

#[test]
fn a_pack_that_is_killed_leaves_the_old_file_or_the_whole_new_one() {
    let folder = Folder::new("pack-killed");
    folder.write("model.safetensors", &checkpoint(2000));
    folder.succeed(&["pack", "model.safetensors", "-q", "--bits", "3"]);
    let old = fs::read(folder.path("model.packed.safetensors")).unwrap();
    folder.succeed(&["pack", "model.safetensors", "-q", "-o", "new.safetensors"]);
    let new = fs::read(folder.path("new.safetensors")).unwrap();
    for step in 0..30 {
        let mut pack =
            command(&["pack", "model.safetensors", "-q", "--force"]).current_dir(&folder.0).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(step * 4));
        let _ = pack.kill();
        pack.wait().unwrap();
        let found = fs::read(folder.path("model.packed.safetensors")).unwrap();
        assert!(found == old || found == new, "after {step} steps: {} bytes", found.len());
        if found == new {
            folder.write("model.packed.safetensors", &old);
        }
    }
}

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/fashion-resnet/model.onnx");

/// The accuracy of a row of `bench network`'s report, in percent.
fn accuracy(report: &serde_json::Value, row: usize) -> f64 {
    report["rows"][row]["accuracy_percent"].as_f64().unwrap()
}

#[test]
fn a_model_is_packed_run_and_put_back_as_int8() {
    let folder = Folder::new("pack-onnx");
    folder.write("model.onnx", &fs::read(MODEL).unwrap());
    let report = folder.json(&["pack", "model.onnx", "--bits", "4", "--least-weights", "1"]);
    assert_eq!(report["file"], "model.packed.safetensors");
    let kinds = report["tensors"].as_array().unwrap().iter().filter(|tensor| tensor["kind"] == "packed");
    assert_eq!(kinds.count(), 10);

    let bench = ["bench", "network", "model.packed.safetensors", "--model", "model.onnx", "--images", "200"];
    let ran = folder.json(&bench);
    assert_eq!((ran["images"].as_u64(), ran["weights"].as_u64()), (Some(200), Some(306_720)));
    assert!(
        accuracy(&ran, 0) > 90.0 && ran["rows"][0]["agreement_percent"].as_f64().unwrap() > 95.0,
        "{ran}"
    );
    assert!(ran["rows"][0]["bytes"].as_u64().unwrap() * 6 < ran["rows"][1]["bytes"].as_u64().unwrap());

    folder.succeed(&["unpack", "model.packed.safetensors", "--onnx", "model.onnx"]);
    let int8 = narrows_split::Model::read(folder.path("model.int8.onnx")).unwrap();
    let engine = |model: &narrows_split::Model| narrows_split::Engine::load(model).unwrap();
    let original = engine(&narrows_split::Model::read(MODEL).unwrap());
    let mut image = vec![0.0; 784];
    image.iter_mut().enumerate().for_each(|(i, x)| *x = ((i % 28) as f32 * 0.3).sin().abs());
    let [found, wanted] = [engine(&int8), original].map(|engine| engine.run(&image).unwrap());
    let most = |logits: &[f32]| (0..10).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap();
    assert_eq!((found.len(), most(&found)), (10, most(&wanted)));
    // The checkpoint that is unpacked beside it has the weights that the int8 model computes with.
    folder.fail(USAGE, &["unpack", "model.packed.safetensors", "--onnx", "model.onnx", "-o", "model.onnx"]);
    let tiny = concat!(env!("CARGO_MANIFEST_DIR"), "/../narrows-split/tests/models/tiny-residual.onnx");
    let said = folder.fail(DATA, &["unpack", "model.packed.safetensors", "--onnx", tiny, "-o", "x.onnx"]);
    assert!(said.contains("no weight") && said.contains("hint"), "{said}");
    folder.fail(DATA, &["bench", "network", "model.packed.safetensors", "--model", tiny]);
    folder.fail(USAGE, &["pack", "model.packed.safetensors", "--dataset", "nowhere"]);
    folder.fail(NO_INPUT, &["pack", "model.onnx", "--dataset", "nowhere", "-o", "x.safetensors"]);
}
