//! A split on disk: whoever reads it gets the pair that was written, or an error that says what is wrong.

mod common;

use std::path::PathBuf;

use common::{demo_model, residual};
use narrows_split::{Error, MANIFEST, Manifest, Split, split};

fn halves() -> Split {
    split(&residual().model(), "a").unwrap()
}

/// A folder of its own for each test, with the split written into it.
fn written(test: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("narrows-manifest-{test}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    halves().write(&folder, None).unwrap();
    folder
}

fn json() -> String {
    halves().manifest().unwrap().to_json()
}

fn rule(json: &str) -> String {
    match Manifest::from_json(json.as_bytes()) {
        Err(Error::Manifest { rule }) => rule,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_was_written_is_read() {
    let folder = written("read");
    let manifest = Manifest::read(&folder).unwrap();
    let (head, tail) = (manifest.read_head(&folder).unwrap(), manifest.read_tail(&folder).unwrap());
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(manifest, halves().manifest().unwrap());
    assert_eq!(manifest.model_sha256, residual().model().sha256());
    assert_eq!(head.sha256(), halves().head.sha256());
    assert_eq!(tail.sha256(), halves().tail.sha256());
}

#[test]
fn a_half_of_another_split_is_refused() {
    let folder = written("another");
    split(&demo_model(), "layer2").unwrap().tail.write(folder.join("tail.onnx")).unwrap();
    let manifest = Manifest::read(&folder).unwrap();
    let head = manifest.read_head(&folder).map(|_| ());
    let error = manifest.read_tail(&folder).unwrap_err();
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(head.is_ok());
    assert!(
        matches!(&error, Error::Mismatch { what, .. } if what.ends_with("tail.onnx (SHA-256)")),
        "{error}"
    );
}

#[test]
fn a_head_in_the_place_of_the_tail_is_refused() {
    let folder = written("swapped");
    let mut manifest = Manifest::read(&folder).unwrap();
    manifest.tail.file = manifest.head.file.clone();
    manifest.tail.sha256 = manifest.head.sha256.clone();
    let error = manifest.read_tail(&folder).unwrap_err();
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(matches!(&error, Error::Mismatch { what, .. } if what.ends_with("(narrows.role)")), "{error}");
}

#[test]
fn a_manifest_that_lists_other_tensors_is_refused() {
    let folder = written("tensors");
    let mut manifest = Manifest::read(&folder).unwrap();
    manifest.head.inputs[0].name = "y".into();
    let error = manifest.read_head(&folder).unwrap_err();
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(matches!(&error, Error::Mismatch { found, .. } if found == "x"), "{error}");
}

#[test]
fn a_manifest_that_is_missing_is_named() {
    let error = Manifest::read("no/such/folder").unwrap_err().to_string();
    assert!(error.starts_with(&format!("no/such/folder/{MANIFEST}: ")), "{error}");
}

#[test]
fn a_newer_version_and_another_format_are_refused() {
    let newer = json().replace("\"version\": 1", "\"version\": 2");
    assert_eq!(rule(&newer), "it must be `narrows-split` version 1 to 1, it is `narrows-split` version 2");
    assert!(rule(&json().replace("narrows-split", "something")).contains("it is `something` version 1"));
    assert!(rule("{}").contains("missing field"));
    assert!(rule("").contains("EOF"));
}

#[test]
fn a_file_outside_the_folder_is_refused() {
    for file in ["../tail.onnx", "/etc/passwd", "a\\\\b", "", "..", "c:x"] {
        let rule = rule(&json().replace("tail.onnx", file));
        assert!(rule.contains("a file in the manifest's folder"), "{file}: {rule}");
    }
}

#[test]
fn a_hash_that_is_none_is_refused() {
    let hash = residual().model().sha256().to_owned();
    assert!(rule(&json().replace(&hash, &hash.to_uppercase())).contains("64 lower-case"));
    assert!(rule(&json().replace(&hash, &hash[1..])).contains("64 lower-case"));
}

#[test]
fn two_payloads_or_none_are_refused() {
    assert!(rule(&json().replace("\"payload\"", "\"side\"")).contains("the only payload"));
    assert!(rule(&json().replace("\"cut\": \"a\"", "\"cut\": \"b\"")).contains("the only payload"));
}

#[test]
fn a_truncated_or_damaged_manifest_is_an_error_or_a_manifest() {
    let json = json();
    for length in 0..json.trim_end().len() {
        assert!(Manifest::from_json(&json.as_bytes()[..length]).is_err(), "{length}");
    }
    for position in 0..json.len() * 8 {
        let mut damaged = json.clone().into_bytes();
        damaged[position / 8] ^= 1 << (position % 8);
        let _ = Manifest::from_json(&damaged);
    }
}

#[test]
fn a_manifest_too_long_to_be_one_is_refused() {
    let long = format!("{{\"format\": \"{}\"}}", "x".repeat(1 << 20));
    assert!(rule(&long).contains("at most 1048576 bytes"));
}
