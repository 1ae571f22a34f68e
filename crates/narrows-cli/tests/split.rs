//! `narrows cuts`, `split`, `serve` and `run` with real processes.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use narrows_split::{Engine, Model};
use npyz::WriterBuilder;
use serde_json::Value;

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/fashion-resnet/model.onnx");
const IMAGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/fashion-resnet/test-1000.npz");

fn narrows() -> Command {
    Command::new(env!("CARGO_BIN_EXE_narrows"))
}

fn success(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

fn json(command: &mut Command) -> Value {
    serde_json::from_slice(&success(command).stdout).unwrap()
}

/// A folder of its own for each test, empty at the start.
fn folder(test: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// The demo network's halves at `cut`.
fn split(test: &str, cut: &str) -> PathBuf {
    let folder = folder(test);
    success(narrows().args(["split", MODEL, "--at", cut, "--check", "-o"]).arg(&folder));
    folder
}

/// A server that ends with the test.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(tail: &Path) -> Self {
        let mut child = narrows().args(["serve", "--tail"]).arg(tail).stdout(Stdio::piped()).spawn().unwrap();
        let mut address = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut address).unwrap();
        Self { child, address: address.trim().into() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// The first images of the demo's test set, as bytes.
fn images(count: usize) -> Vec<u8> {
    let mut archive = npyz::npz::NpzArchive::open(IMAGES).unwrap();
    let mut pixels: Vec<u8> = archive.by_name("images").unwrap().unwrap().into_vec().unwrap();
    pixels.truncate(count * 28 * 28);
    pixels
}

fn write_npy(path: &Path, pixels: &[u8]) {
    let shape = [pixels.len() as u64 / (28 * 28), 1, 28, 28];
    let file = std::fs::File::create(path).unwrap();
    let mut writer = npyz::WriteOptions::new().default_dtype().shape(&shape).writer(file).begin_nd().unwrap();
    writer.extend(pixels.iter().copied()).unwrap();
    writer.finish().unwrap();
}

fn largest(logits: &[f32]) -> usize {
    (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap()
}

#[test]
fn the_three_cuts_of_the_demo_are_listed_with_their_sizes() {
    let report = json(narrows().args(["cuts", MODEL, "--json"]));
    let cuts = report["cuts"].as_array().unwrap();
    for (name, bytes) in [("layer1", 100_352), ("layer2", 50_176), ("layer3", 25_088)] {
        let cut = cuts.iter().find(|cut| cut["tensor"] == name).unwrap_or_else(|| panic!("no {name}"));
        assert_eq!(cut["bytes"], bytes);
        assert!(cut["macs_before"].as_u64() > Some(0) && cut["macs_after"].as_u64() > Some(0));
    }
    let all = json(narrows().args(["cuts", MODEL, "--all", "--json"]));
    assert!(all["cuts"].as_array().unwrap().len() > cuts.len());
}

#[test]
fn a_split_network_gives_the_classes_of_the_whole_through_two_processes() {
    let folder = split("through_two_processes", "layer2");
    let (pixels, input) = (images(20), folder.join("images.npy"));
    write_npy(&input, &pixels);
    let whole = Engine::load(&Model::read(MODEL).unwrap()).unwrap();
    let expected: Vec<Vec<f32>> = pixels
        .chunks_exact(28 * 28)
        .map(|image| whole.run(&image.iter().map(|&x| f32::from(x) / 255.0).collect::<Vec<_>>()).unwrap())
        .collect();

    let server = Server::start(&folder.join("tail.onnx"));
    let run = |coding: &[&str]| {
        let mut command = narrows();
        command.args(["run", "--json", "--server", &server.address, "--head"]).arg(folder.join("head.onnx"));
        json(command.args(coding).arg(&input))["requests"].as_array().unwrap().clone()
    };

    for (request, expected) in run(&["--lossless"]).iter().zip(&expected) {
        let logits: Vec<f32> =
            request["logits"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect();
        assert_eq!(&logits, expected);
    }
    let requests = run(&["--bits", "8"]);
    assert_eq!(requests.len(), 20);
    for (request, expected) in requests.iter().zip(&expected) {
        assert_eq!(request["top"][0]["class"], largest(expected));
        assert!(request["bytes"].as_u64().unwrap() < 50_176 / 4);
    }
}

#[test]
fn a_wrong_tensor_name_is_a_usage_error_with_a_proposal() {
    let output = narrows().args(["split", MODEL, "--at", "layr2", "-o", "nowhere"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("did you mean `layer2`?"), "{message}");
    assert!(!Path::new("nowhere").exists());
}

#[test]
fn files_that_exist_are_kept_unless_forced() {
    let folder = folder("kept_unless_forced");
    std::fs::write(folder.join("tail.onnx"), "mine").unwrap();
    let split = |force: &[&str]| {
        narrows().args(["split", MODEL, "--at", "layer3", "-o"]).arg(&folder).args(force).output().unwrap()
    };
    assert_eq!(split(&[]).status.code(), Some(2));
    assert_eq!(std::fs::read(folder.join("tail.onnx")).unwrap(), b"mine");
    assert!(!folder.join("head.onnx").exists());
    assert!(split(&["--force"]).status.success());
    assert!(Model::read(folder.join("tail.onnx")).is_ok());
}

#[test]
fn a_server_that_is_not_there_may_be_tried_again() {
    let folder = split("not_there", "layer3");
    let input = folder.join("images.npy");
    write_npy(&input, &images(1));
    // A port that was free a moment ago.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let output = narrows()
        .args(["run", "--server", &address.to_string(), "--head"])
        .args([folder.join("head.onnx"), input])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(75), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_head_is_told_when_the_server_has_another_tail() {
    let (head, tail) = (split("another_head", "layer1"), split("another_tail", "layer3"));
    let input = head.join("images.npy");
    write_npy(&input, &images(1));
    let server = Server::start(&tail.join("tail.onnx"));
    let output = narrows()
        .args(["run", "--server", &server.address, "--head"])
        .args([head.join("head.onnx"), input])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("it serves layer3"), "{message}");
}
