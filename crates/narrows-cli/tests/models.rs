//! `narrows cuts`, `split`, `embed` and `generate` on small networks of each kind, with real processes.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use narrows_split::{Class, Manifest};
use serde_json::Value;

const CUT: &str = "/model/model/layers.0/Add_1_output_0";

fn model(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../narrows-split/tests/models/{name}.onnx"))
}

fn narrows(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_narrows"));
    command.args(arguments);
    command
}

fn json(command: &mut Command) -> Value {
    let Output { status, stdout, stderr } = command.output().unwrap();
    assert!(status.success(), "{command:?}: {}", String::from_utf8_lossy(&stderr));
    serde_json::from_slice(&stdout).unwrap()
}

/// Exit code and message of a command that fails.
fn failure(command: &mut Command) -> (i32, String) {
    let output = command.output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

/// A folder of its own for each test, empty at the start.
fn folder(test: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

#[test]
fn cuts_of_a_decoder_are_listed_with_side_tensors_state_times_and_the_check() {
    let report = json(narrows(&["cuts", "--json", "--check", "--time"]).arg(model("tiny-decoder-kv")));
    assert_eq!(report["dimensions"]["past_sequence_length"], 16);
    let cuts = report["cuts"].as_array().unwrap();
    let cut = cuts.iter().find(|cut| cut["tensor"] == CUT).unwrap();
    let side: Vec<_> =
        cut["side"].as_array().unwrap().iter().map(|side| side["tensor"].as_str().unwrap()).collect();
    assert_eq!(side, ["attention_mask", "position_ids"]);
    assert_eq!(texts(&cut["state_before"]), ["past_key_values.0.key", "past_key_values.0.value"]);
    assert_eq!(texts(&cut["state_after"]), ["past_key_values.1.key", "past_key_values.1.value"]);
    assert!(cuts.iter().all(|cut| cut["check"]["identical"] == true));
    assert!(
        cuts.iter().all(|cut| cut["head_ms"].as_f64() > Some(0.0) && cut["tail_ms"].as_f64() > Some(0.0))
    );
    // 4 bits an element, and a header.
    assert!(cut["estimated_bytes"].as_u64().unwrap() < cut["bytes"].as_u64().unwrap() / 8 + 64);
}

#[test]
fn no_pareto_cut_is_beaten_and_every_other_is() {
    let report = json(narrows(&["cuts", "--json"]).arg(model("tiny-depthwise")));
    let cuts = report["cuts"].as_array().unwrap();
    let point =
        |cut: &Value| (cut["estimated_bytes"].as_u64().unwrap(), cut["macs_before"].as_u64().unwrap());
    for cut in cuts {
        let (bytes, macs) = point(cut);
        let is_beaten =
            cuts.iter().map(point).any(|other| other != (bytes, macs) && other.0 <= bytes && other.1 <= macs);
        assert_eq!(cut["pareto"], !is_beaten, "{}", cut["tensor"]);
    }
    assert!(cuts.iter().any(|cut| cut["pareto"] == false));
}

#[test]
fn an_open_dimension_has_the_size_that_was_asked_for() {
    let cuts =
        |dim: &str| narrows(&["cuts", "--json", "--dim", dim]).arg(model("tiny-encoder")).output().unwrap();
    let report: Value = serde_json::from_slice(&cuts("sequence_length=24").stdout).unwrap();
    assert_eq!(report["cuts"][0]["shape"], serde_json::json!([1, 24, 32]));
    let (code, message) = failure(narrows(&["cuts", "--dim", "length=24"]).arg(model("tiny-encoder")));
    assert_eq!(code, 2);
    assert!(message.contains("it has `batch_size`, `sequence_length`"), "{message}");
    assert_eq!(failure(narrows(&["cuts", "--dim", "sequence_length"]).arg(model("tiny-encoder"))).0, 2);
}

#[test]
fn an_engine_that_does_not_exist_is_a_usage_error_with_those_that_do() {
    let (code, message) = failure(narrows(&["cuts", "--engine", "abacus"]).arg(model("tiny-residual")));
    assert_eq!(code, 2);
    assert!(message.contains("tract, onnxruntime, onnxruntime-all"), "{message}");
}

#[test]
fn a_split_comes_with_a_manifest_of_its_tensors() {
    let folder = folder("manifest");
    let done = json(
        narrows(&["split", "--at", CUT, "--check", "--json", "-o"])
            .arg(&folder)
            .arg(model("tiny-decoder-kv")),
    );
    assert_eq!(texts(&done["side"]), ["attention_mask", "position_ids"]);
    assert_eq!(done["checked_inputs"], 8);
    let manifest = Manifest::read(&folder).unwrap();
    manifest.read_head(&folder).unwrap();
    manifest.read_tail(&folder).unwrap();
    assert_eq!(manifest.cut, CUT);
    assert_eq!(manifest.checked.unwrap().inputs, 8);
    let states = manifest.tail.outputs.iter().filter(|tensor| tensor.class == Class::State).count();
    assert_eq!(states, 2);
}

#[test]
fn a_decoder_cut_in_two_generates_the_whole_ones_tokens_bit_for_bit() {
    for name in ["tiny-decoder-kv", "tiny-decoder"] {
        let report = json(
            narrows(&["generate", "--at", CUT, "--prompt", "3,14,15", "--new", "4", "--check", "--json"])
                .arg(model(name)),
        );
        let steps = report["steps"].as_array().unwrap();
        assert_eq!(steps.len(), 4);
        for step in steps {
            assert_eq!(step["token"], step["whole_token"], "{name}");
            assert_eq!(step["largest_difference"], 0.0, "{name}");
        }
    }
}

#[test]
fn the_hidden_state_of_each_step_crosses_within_its_rate_and_caches_stay() {
    let report = json(
        narrows(&[
            "generate",
            "--at",
            CUT,
            "--prompt",
            "3,14,15,9,26,5,35,8",
            "--new",
            "3",
            "--rate",
            "6",
            "--json",
        ])
        .arg(model("tiny-decoder-kv")),
    );
    let steps = report["steps"].as_array().unwrap();
    assert_eq!(
        steps.iter().map(|step| step["elements"].as_u64().unwrap()).collect::<Vec<_>>(),
        [8 * 32, 32, 32]
    );
    let frame = steps[0]["frame_bytes"].as_u64().unwrap();
    assert!(frame * 8 <= 6 * 8 * 32 && frame > 8 * 32 / 8, "{frame}");
    for (step, tokens) in steps.iter().zip(8..) {
        // Of one layer on either side: key and value, 2 heads of 8 float32 for every token.
        assert_eq!(step["head_state_bytes"], 2 * 2 * 8 * 4 * tokens);
        assert_eq!(step["tail_state_bytes"], 2 * 2 * 8 * 4 * tokens);
    }
}

#[test]
fn sentences_through_a_split_encoder_keep_their_embeddings() {
    let folder = folder("embed");
    let (tokens, embeddings) = (folder.join("sentences.ids"), folder.join("embeddings.npy"));
    std::fs::write(&tokens, "1 17 23 42 9 30 31 2\n1 5 60 2\n\n1 33 12 8 21 44 2\n").unwrap();
    let report = json(
        narrows(&["embed", "--json", "--rate", "1.5", "--rate", "6", "--tokens"])
            .arg(&tokens)
            .arg("-o")
            .arg(&embeddings)
            .arg(model("tiny-encoder")),
    );
    let results = report["results"].as_array().unwrap();
    assert_eq!(results.len(), 3 * 2, "three cuts, two rates");
    for pair in results.chunks(2) {
        let [coarse, fine] = [&pair[0], &pair[1]].map(|row| row["cosine_min"].as_f64().unwrap());
        assert!(fine > 0.995 && fine <= 1.0 && coarse < fine, "{coarse} and {fine}");
        assert!(pair[1]["bits_per_element"].as_f64().unwrap() <= 6.0);
        assert_eq!(pair[1]["sentences"], 3);
    }
    let file = npyz::NpyFile::new(std::fs::File::open(embeddings).unwrap()).unwrap();
    assert_eq!(file.shape(), [3, 32]);
}

#[test]
fn text_that_is_no_token_numbers_is_refused_with_its_line() {
    let tokens = folder("words").join("sentences.txt");
    std::fs::write(&tokens, "1 2 3\nhello world\n").unwrap();
    let (code, message) = failure(narrows(&["embed", "--tokens"]).arg(&tokens).arg(model("tiny-encoder")));
    assert_eq!(code, 65);
    assert!(message.contains("line 2"), "{message}");
}

#[test]
fn a_token_beyond_the_vocabulary_is_an_error() {
    let (code, message) =
        failure(narrows(&["generate", "--at", CUT, "--prompt", "3,1000"]).arg(model("tiny-decoder-kv")));
    assert_eq!(code, 65, "{message}");
}

#[test]
fn a_network_for_images_is_no_text_model() {
    let (code, message) = failure(
        narrows(&["generate", "--at", "/2/Relu_1_output_0", "--prompt", "3"]).arg(model("tiny-residual")),
    );
    assert_eq!(code, 65);
    assert!(message.contains("what to feed the input image"), "{message}");
}
