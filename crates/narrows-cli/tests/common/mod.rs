//! What tests of the program share: folders, processes, array files.
#![allow(dead_code)]

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

pub const USAGE: i32 = 2;
pub const DATA: i32 = 65;
pub const NO_INPUT: i32 = 66;
pub const IO: i32 = 74;
pub const CONFIGURATION: i32 = 78;

/// A folder that is gone after the test.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("narrows-cli-{}-{test}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        fs::write(self.path(name), bytes).unwrap();
        self.path(name)
    }

    /// Run the program in this folder.
    pub fn narrows(&self, args: &[&str]) -> Output {
        command(args).current_dir(&self.0).output().unwrap()
    }

    pub fn succeed(&self, args: &[&str]) -> Output {
        let output = self.narrows(args);
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        output
    }

    /// Run the program, expecting this exit code; returns what it says.
    pub fn fail(&self, code: i32, args: &[&str]) -> String {
        let output = self.narrows(args);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert!(said.starts_with("error: "), "{said}");
        said
    }

    pub fn json(&self, args: &[&str]) -> Value {
        let output = self.succeed(&[args, &["--json"]].concat());
        serde_json::from_slice(&output.stdout).unwrap()
    }

    pub fn frame(&self, name: &str) -> PathBuf {
        let frame = narrows::encode(&narrows::TensorView::new(&waves(), &[8, 6, 7]).unwrap(), 4).unwrap();
        self.write(name, &frame)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_narrows"));
    command.args(args);
    command
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Give `bytes` to the program's standard input.
pub fn feed(args: &[&str], bytes: &[u8]) -> Output {
    let mut child =
        command(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let bytes = bytes.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(&bytes));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    output
}

/// 8 x 6 x 7 smooth values, half of them zero.
pub fn waves() -> Vec<f32> {
    (0..8 * 6 * 7).map(|i| ((i as f32 * 0.37).sin() + (i / 42) as f32 * 0.1).max(0.0)).collect()
}

pub fn npy_header(kind: &str, order: &str, shape: &str) -> Vec<u8> {
    let mut text = format!("{{'descr': '{kind}', 'fortran_order': {order}, 'shape': {shape}, }}");
    while (10 + text.len() + 1) % 64 != 0 {
        text.push(' ');
    }
    text.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((text.len() as u16).to_le_bytes());
    bytes.extend(text.as_bytes());
    bytes
}

pub fn npy(kind: &str, order: &str, shape: &str, data: impl IntoIterator<Item = u8>) -> Vec<u8> {
    let mut bytes = npy_header(kind, order, shape);
    bytes.extend(data);
    bytes
}

pub fn waves_npy() -> Vec<u8> {
    npy("<f4", "False", "(8, 6, 7)", waves().iter().flat_map(|x| x.to_le_bytes()))
}

pub fn safetensors(tensors: &[(&str, safetensors::Dtype, &[u8])]) -> Vec<u8> {
    let views = tensors.iter().map(|(name, dtype, bytes)| {
        let elements = bytes.len() * 8 / dtype.bitsize();
        (*name, safetensors::tensor::TensorView::new(*dtype, vec![elements], bytes).unwrap())
    });
    safetensors::serialize(views, None).unwrap()
}

pub fn npz(arrays: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = npyz::npz::NpzWriter::new(std::io::Cursor::new(Vec::new()));
    let zip = writer.zip_writer();
    for (name, bytes) in arrays {
        zip.start_file(format!("{name}.npy"), <_>::default()).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

pub fn error_of(output: &Output) -> Value {
    serde_json::from_slice::<Value>(&output.stderr).unwrap()["error"].clone()
}
