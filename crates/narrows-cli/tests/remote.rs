//! Halves in two processes: side tensors, streams and their end, splits that do not go together, adaptation, and the tail
//! that a device falls back on.

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use common::*;
use npyz::npz::NpzArchive;
use serde_json::Value;

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/fashion-resnet/model.onnx");
const IMAGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/fashion-resnet/test-1000.npz");
const CUT: &str = "/model/model/layers.0/Add_1_output_0";
const NOBODY: &str = "127.0.0.1:9";
const TRY_AGAIN: i32 = 75;

fn tiny(name: &str) -> String {
    format!("{}/../narrows-split/tests/models/{name}.onnx", env!("CARGO_MANIFEST_DIR"))
}

/// A program that serves until the test ends.
struct Serving {
    child: Child,
    address: String,
}

impl Serving {
    fn start(folder: &Folder, arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_narrows"));
        command.args(arguments).arg("--json").current_dir(folder.path("."));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let said: Value = serde_json::from_str(&line).unwrap();
        Self { child, address: said["address"].as_str().unwrap().to_owned() }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }
}

/// The first `count` images and labels, as files of their own, and the demo network's halves.
fn demo(folder: &Folder, count: usize, cut: &str) {
    let array = |name: &str| -> Vec<u8> {
        let mut archive = NpzArchive::open(IMAGES).unwrap();
        archive.by_name(name).unwrap().unwrap().into_vec().unwrap()
    };
    let pixels = array("images").into_iter().take(count * 28 * 28);
    folder.write("images.npy", &npy("|u1", "False", &format!("({count}, 28, 28)"), pixels));
    let labels = array("labels").into_iter().take(count);
    folder.write("labels.npy", &npy("|u1", "False", &format!("({count},)"), labels));
    folder.succeed(&["split", MODEL, "--at", cut, "-o", "halves", "--force"]);
}

const GENERATE: [&str; 6] = ["generate", "halves", "--prompt", "3,14,15,9", "--new", "4"];

#[test]
fn a_decoder_generates_over_the_network_what_it_does_in_one_process() {
    let folder = Folder::new("remote-decoder");
    for model in ["tiny-decoder-kv", "tiny-decoder"] {
        folder.succeed(&["split", &tiny(model), "--at", CUT, "-o", "halves", "--force"]);
        let server = Serving::start(&folder, &["serve", "--tail", "halves"]);
        let here = folder.json(&GENERATE);
        let there = folder.json(&[&GENERATE[..], &["--server", &server.address]].concat());
        assert_eq!(here["tokens"], there["tokens"], "{model}");
        let whole =
            folder.json(&["generate", &tiny(model), "--at", CUT, "--prompt", "3,14,15,9", "--new", "4"]);
        assert_eq!(whole["tokens"], there["tokens"], "{model}");
        // On a link that breaks, a step whose answer was lost is not taken twice.
        let link = [
            "link",
            "--server",
            &server.address,
            "--fault",
            "reset",
            "--fault-probability",
            "0.6",
            "--seed",
            "4",
        ];
        let link = Serving::start(&folder, &link);
        let there = folder.json(&[&GENERATE[..], &["--server", &link.address]].concat());
        assert_eq!(here["tokens"], there["tokens"], "{model}");
    }
}

#[test]
fn sentences_are_embedded_over_the_network_as_in_one_process() {
    let folder = Folder::new("remote-encoder");
    folder.write("sentences.ids", b"1 17 23 42 9 30 31 2\n1 5 60 2\n1 33 12 8 21 44 2\n");
    let cuts = folder.json(&["cuts", &tiny("tiny-encoder")]);
    let cut = cuts["cuts"][0]["tensor"].as_str().unwrap();
    folder.succeed(&["split", &tiny("tiny-encoder"), "--at", cut, "-o", "halves"]);
    let server = Serving::start(&folder, &["serve", "--tail", "halves/tail.onnx"]);
    let embed = ["embed", "--rate", "5", "--tokens", "sentences.ids", "--calibrate", "sentences.ids"];
    folder.succeed(&[&embed[..], &["halves", "-o", "here.npy"]].concat());
    let server = ["--server", &server.address];
    let report = folder.json(&[&embed[..], &["halves", "-o", "there.npy"], &server].concat());
    assert_eq!(report["results"][0]["cosine_min"], Value::Null, "nobody has the whole model");
    assert_eq!(
        std::fs::read(folder.path("here.npy")).unwrap(),
        std::fs::read(folder.path("there.npy")).unwrap()
    );
    let report = folder.json(&[&embed[..], &[&tiny("tiny-encoder"), "--at", cut], &server].concat());
    assert!(report["results"][0]["cosine_min"].as_f64() > Some(0.97), "{report}");
}

#[test]
fn a_head_of_another_split_is_refused() {
    let folder = Folder::new("another-split");
    folder.succeed(&["split", &tiny("tiny-decoder-kv"), "--at", CUT, "-o", "halves"]);
    folder.succeed(&["split", &tiny("tiny-decoder"), "--at", CUT, "-o", "others"]);
    let server = Serving::start(&folder, &["serve", "--tail", "others"]);
    let message = folder.fail(CONFIGURATION, &[&GENERATE[..], &["--server", &server.address]].concat());
    assert!(message.contains("another split"), "{message}");
    // And a server does not start with halves that were mixed.
    std::fs::copy(folder.path("others/tail.onnx"), folder.path("halves/tail.onnx")).unwrap();
    for tail in ["halves", "halves/tail.onnx"] {
        let message = folder.fail(DATA, &["serve", "--tail", tail]);
        assert!(message.contains("SHA-256"), "{message}");
    }
}

#[test]
fn a_stream_that_the_server_gave_up_begins_again_a_few_times() {
    let folder = Folder::new("stream-gone");
    folder.succeed(&["split", &tiny("tiny-decoder-kv"), "--at", CUT, "-o", "halves"]);
    let serve = ["serve", "--tail", "halves", "--set"];
    let server = Serving::start(&folder, &[&serve[..], &["streams.idle_timeout_ms=0"]].concat());
    let here = folder.json(&GENERATE);
    let there = folder.json(&[&GENERATE[..], &["--server", &server.address]].concat());
    assert_eq!((&there["restarts"], &there["tokens"]), (&3.into(), &here["tokens"]));
    let more = ["generate", "halves", "--prompt", "3,14", "--new", "5", "--quiet", "--server"];
    let message = folder.fail(TRY_AGAIN, &[&more[..], &[&server.address]].concat());
    assert!(message.contains("stream gone"), "{message}");
    let server = Serving::start(&folder, &[&serve[..], &["streams.max_streams=0"]].concat());
    let message = folder.fail(TRY_AGAIN, &[&more[..], &[&server.address]].concat());
    assert!(message.contains("no room"), "{message}");
}

#[test]
fn without_a_server_the_tail_here_answers_and_the_record_says_so() {
    let folder = Folder::new("fallback");
    demo(&folder, 3, "layer3");
    let run = ["run", "--head", "halves", "images.npy", "--server"];
    let message = folder.fail(TRY_AGAIN, &[&run[..], &[NOBODY]].concat());
    assert!(message.contains("narrows serve"), "{message}");
    let here = folder.json(&[&run[..], &[NOBODY, "--tail", "halves"]].concat());
    let server = Serving::start(&folder, &["serve", "--tail", "halves"]);
    let there = folder.json(&[&run[..], &[&server.address, "--tail", "halves"]].concat());
    assert_eq!((&here["answered"]["device"], &there["answered"]["server"]), (&3.into(), &3.into()));
    for index in 0..3 {
        let [here, there] = [&here, &there].map(|report| &report["requests"][index]);
        assert_eq!((&here["answered_by"], &there["answered_by"]), (&"device".into(), &"server".into()));
        assert_eq!(here["logits"], there["logits"]);
    }
    let missed = folder.json(&[&run[..], &["127.0.0.1:1", "--tail", "halves", "--deadline", "1ms"]].concat());
    assert_eq!(missed["requests"].as_array().unwrap().len(), 3, "{missed}");
}

#[test]
fn a_controller_chooses_what_the_link_allows() {
    let folder = Folder::new("adaptive-run");
    demo(&folder, 60, "layer2");
    let halves = ["--head", "halves/head.onnx", "--tail", "halves/tail.onnx"];
    folder.succeed(
        &[&["calibrate", "images.npy", "--labels", "labels.npy", "-o", "points"][..], &halves].concat(),
    );
    let server = Serving::start(&folder, &["serve", "--tail", "halves"]);
    demo(&folder, 16, "layer2");
    let run = ["run", "images.npy", "--head", "halves", "--adapt", "points", "--server", &server.address];
    let bytes = |link: &[&str]| {
        let report = folder.json(&[&run[..], link].concat());
        let requests = report["requests"].as_array().unwrap();
        assert_eq!(requests.len(), 16);
        let sent: Vec<_> = requests.iter().filter(|request| request["bytes"].as_u64() > Some(0)).collect();
        assert!(sent.iter().all(|request| request["setting"].is_string()), "{report}");
        // It begins with the smallest, knowing nothing.
        sent.iter().skip(8).map(|request| request["bytes"].as_u64().unwrap()).max().unwrap()
    };
    let fast = bytes(&["--deadline", "10s"]);
    let slow = bytes(&["--deadline", "300ms", "--link-rate", "20k"]);
    assert!(slow < fast && slow * 8 < 6000, "{slow} bytes at 20 kbit/s, {fast} on loopback");
}
