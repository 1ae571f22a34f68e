//! `narrows train` and `narrows bench precision` on a handful of images.
#![cfg(feature = "train")]

mod common;

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use common::{DATA, Folder, NO_INPUT, USAGE, text};
use flate2::Compression;
use flate2::write::GzEncoder;
use npyz::npz::NpzArchive;
use safetensors::SafeTensors;
use serde_json::Value;

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/fashion-resnet/model.onnx");
const IMAGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/fashion-resnet/test-1000.npz");

/// A data set of 60 images to train on and 60 others.
fn data_set(folder: &Folder) {
    let mut archive = NpzArchive::new(File::open(IMAGES).unwrap()).unwrap();
    let mut array = |name| archive.by_name(name).unwrap().unwrap().into_vec::<u8>().unwrap();
    let (pixels, labels) = (array("images"), array("labels"));
    fs::create_dir_all(folder.path("data")).unwrap();
    for (set, from) in [("train", 0), ("t10k", 60)] {
        let range = from..from + 60;
        idx(
            folder,
            &format!("{set}-images-idx3"),
            &[60, 28, 28],
            &pixels[784 * range.start..784 * range.end],
        );
        idx(folder, &format!("{set}-labels-idx1"), &[60], &labels[range]);
    }
}

fn idx(folder: &Folder, name: &str, dims: &[u32], bytes: &[u8]) {
    let mut file = vec![0, 0, 8, dims.len() as u8];
    dims.iter().for_each(|length| file.extend(length.to_be_bytes()));
    file.extend(bytes);
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&file).unwrap();
    folder.write(&format!("data/{name}-ubyte.gz"), &encoder.finish().unwrap());
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

const SHORT: [&str; 8] = ["--dataset", "data", "--epochs", "2", "--batch", "18", "-o", "small.safetensors"];

#[test]
fn training_writes_checkpoint_model_curve_and_drawing() {
    let folder = Folder::new("train");
    data_set(&folder);
    let report = folder.json(&[&["train", MODEL, "--price", "0.3"], &SHORT[..]].concat());
    assert!(report["bits_per_weight"].as_f64().unwrap() > 0.1, "{report}");
    assert_eq!(report["curve"]["points"].as_array().unwrap().last().unwrap()["step"], 6);
    assert_eq!(json(&folder.path("small.json")), report);
    let checkpoint = fs::read(folder.path("small.safetensors")).unwrap();
    let (_, header) = SafeTensors::read_metadata(&checkpoint).unwrap();
    let steps: Value = serde_json::from_str(&header.metadata().as_ref().unwrap()["narrows.steps"]).unwrap();
    assert_eq!(steps.as_object().unwrap().len(), 10);
    assert!(text(&fs::read(folder.path("small.svg")).unwrap()).starts_with("<svg"));
    assert!(!folder.path("small.resume").exists());
    // The model is one that other commands read.
    folder.succeed(&["cuts", "small.onnx"]);
}

#[test]
fn bits_that_were_not_reached_are_told() {
    let folder = Folder::new("train-missed");
    data_set(&folder);
    let said = folder.succeed(&[&["train", MODEL, "--bits", "0.2"], &SHORT[..]].concat());
    let said = text(&said.stderr);
    assert!(said.contains("bits a weight, not the 0.2 that were asked for: give more --epochs"), "{said}");
}

#[test]
fn fisher_quantises_without_training() {
    let folder = Folder::new("fisher");
    data_set(&folder);
    let report =
        folder.json(&["train", MODEL, "--dataset", "data", "--fisher", "2", "-o", "fisher.safetensors"]);
    let bits = report["bits_per_weight"].as_f64().unwrap();
    assert!((1.9..=2.0).contains(&bits), "{bits}");
    assert!(folder.path("fisher.safetensors").exists() && !folder.path("fisher.svg").exists());
}

#[test]
fn what_cannot_be_trained_is_said_why() {
    let folder = Folder::new("train-refused");
    data_set(&folder);
    assert!(
        folder.fail(NO_INPUT, &["train", MODEL, "--dataset", "nowhere"]).contains("dataset-fashion-mnist")
    );
    folder.write("other.onnx", b"\x93NUMPY");
    assert!(folder.fail(DATA, &["train", "other.onnx", "--dataset", "data"]).contains("not an ONNX model"));
    assert!(
        folder.fail(USAGE, &["train", MODEL, "--dataset", "data", "--bits=-1"]).contains("bits per weight")
    );
    folder.fail(USAGE, &["train", MODEL, "--dataset", "data", "--bits", "1", "--float"]);
    folder.write("small.resume", b"nothing");
    let said = folder.fail(DATA, &[&["train", MODEL, "--resume"], &SHORT[..]].concat());
    assert!(said.contains("not a checkpoint") && said.contains("hint"), "{said}");
}

#[test]
fn tables_go_on_where_they_were_stopped() {
    let folder = Folder::new("precision");
    data_set(&folder);
    // Runs that are done already: only one is left to make, and it is a quick one.
    let args =
        ["bench", "precision", MODEL, "--dataset", "data", "--seeds", "1", "--epochs", "1", "-o", "t.html"];
    let row = |family: &str, value: f64| {
        serde_json::json!({
            "family": family, "value": value, "seed": 1, "accuracy_percent": 90.0,
            "bits_per_weight": 1.0, "entropy_per_weight": 0.9, "seconds": 1.0,
        })
    };
    let bins = [2.0, 3.0, 4.0, 5.0, 7.0, 15.0];
    let mut rows: Vec<Value> = [0.8, 1.0, 1.3, 1.6].map(|bits| row("fisher", bits)).into();
    rows.push(row("float", 32.0));
    rows.extend([0.4, 0.5, 0.7, 1.0, 1.5].map(|bits| row("entropy", bits)));
    rows.extend(bins.into_iter().flat_map(|bins| ["fixed", "priced"].map(|family| row(family, bins))));
    let kept = serde_json::json!({ "epochs": 1, "images": null, "rows": rows });
    folder.write("t.json", kept.to_string().as_bytes());
    folder.succeed(&args);
    let rows = json(&folder.path("t.json"))["rows"].as_array().unwrap().clone();
    assert_eq!(rows.len(), 23);
    assert_eq!((rows[22]["family"].as_str(), rows[22]["value"].as_f64()), (Some("fisher"), Some(2.5)));
    assert!(text(&fs::read(folder.path("t.html")).unwrap()).contains("Fisher, 2.5 bits"));
    // Coders are compared on the weights of a checkpoint.
    folder.succeed(&["train", MODEL, "--dataset", "data", "--fisher", "1.5", "-o", "fisher.safetensors"]);
    folder.succeed(&[&args[..], &["--checkpoint", "fisher.safetensors", "--deepcabac", "50000"]].concat());
    let page = text(&fs::read(folder.path("t.html")).unwrap());
    for row in ["tANS, 64 states", "tANS, 1024 states", "rANS", "Huffman", "DeepCABAC", "each output channel"]
    {
        assert!(page.contains(row), "{row}");
    }
    folder.fail(DATA, &[&args[..], &["--checkpoint", "t.json"]].concat());
    folder.fail(USAGE, &[&args[..], &["--deepcabac", "5"]].concat());
    let other = [&args[..8], &["2", "-o", "t.html"]].concat();
    assert!(folder.fail(DATA, &other).contains("cannot be used"));
}
