//! `narrows serve`, `run` and `link` with real processes: settings, tokens, HTTP, bad links, the end.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use npyz::WriterBuilder;
use serde_json::Value;

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/fashion-resnet/model.onnx");

fn narrows() -> Command {
    Command::new(env!("CARGO_BIN_EXE_narrows"))
}

fn json(command: &mut Command) -> Value {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A folder of its own for each test, empty at the start.
fn folder(test: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// A program that serves until the test ends, and its first line as JSON.
struct Serving {
    child: Child,
    said: Value,
}

impl Serving {
    fn start(command: &mut Command) -> Self {
        let mut child = command.arg("--json").stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        Self { child, said: serde_json::from_str(&line).unwrap() }
    }

    fn address(&self) -> &str {
        self.said["address"].as_str().unwrap()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }
}

/// Head, and an input, of the demo network cut at `layer3`.
fn head(folder: &Path) -> (PathBuf, PathBuf) {
    let split = narrows().args(["split", MODEL, "--at", "layer3", "-o"]).arg(folder).output().unwrap();
    assert!(split.status.success(), "{}", stderr(&split));
    let input = folder.join("images.npy");
    let mut writer = npyz::WriteOptions::new()
        .default_dtype()
        .shape(&[2, 1, 28, 28])
        .writer(std::fs::File::create(&input).unwrap())
        .begin_nd()
        .unwrap();
    writer.extend((0..2 * 28 * 28).map(|i| (i * 7) as u8)).unwrap();
    writer.finish().unwrap();
    (folder.join("head.onnx"), input)
}

fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn the_two_link_models_are_told_apart() {
    let report = json(narrows().args(["link", "--bytes", "56000", "--json"]));
    let models = report["models"].as_array().unwrap();
    assert_eq!(models[0]["model"], "outage");
    assert!((models[0]["rate_bit_s"].as_f64().unwrap() - 143_624.4).abs() < 0.1);
    assert!((models[0]["seconds"].as_f64().unwrap() - 3.119).abs() < 0.001);
    assert_eq!(models[1]["model"], "paper-table3");
    let report = json(narrows().args(["link", "--bytes", "3240000", "--json"]));
    assert!((report["models"][1]["seconds"].as_f64().unwrap() / 6.62e-3 - 1.0).abs() < 0.004);
}

#[test]
fn settings_are_shown_with_their_origins() {
    let folder = folder("settings_are_shown");
    let file = folder.join("serve.toml");
    std::fs::write(&file, "tails = [\"tail.onnx\"]\n[limits]\nmax_connections = 7\n").unwrap();
    let mut command = narrows();
    command.args(["serve", "--print-config", "--set", "log.format=json", "--config"]).arg(&file);
    let output = command.env("NARROWS_SERVE_WORKERS", "3").output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    for (setting, origin) in [
        ("max_connections = 7", "serve.toml"),
        ("workers = 3", "NARROWS_SERVE_WORKERS"),
        ("format = \"json\"", "command line"),
        ("max_in_flight = 1024", "default"),
    ] {
        let line = text.lines().find(|line| line.starts_with(setting));
        assert!(line.is_some_and(|line| line.contains(origin)), "{setting}: {text}");
    }
}

#[test]
fn wrong_settings_are_configuration_errors() {
    let serve = |args: &[&str]| narrows().arg("serve").args(args).output().unwrap();
    let output = serve(&["--demo-cut", "layer3", "--set", "limits.max_conections=1"]);
    assert_eq!(output.status.code(), Some(78), "{}", stderr(&output));
    assert!(stderr(&output).contains("limits.max_conections"), "{}", stderr(&output));
    assert_eq!(serve(&["--demo-cut", "layer3", "--set", "auth.tokens_file=nowhere"]).status.code(), Some(78));
    assert_eq!(serve(&["--config", "nowhere.toml"]).status.code(), Some(78));
    assert_eq!(serve(&[]).status.code(), Some(2), "nothing to serve");
}

#[test]
fn a_token_a_profile_and_a_bad_link_between_real_processes() {
    let folder = folder("token_profile_link");
    let (head, input) = head(&folder);
    let token = folder.join("token");
    std::fs::write(&token, "s3cret\n").unwrap();
    let tokens = format!("auth.tokens_file={}", token.display());
    let server = Serving::start(narrows().args([
        "serve",
        "--demo-cut",
        "layer3",
        "--http",
        "127.0.0.1:0",
        "--set",
        &tokens,
    ]));
    let mut link = narrows();
    link.args(["link", "--server", server.address(), "--rate", "2M", "--delay", "5"]);
    let link = Serving::start(link.args(["--fault", "reset", "--fault-probability", "0.5", "--seed", "3"]));
    let run = |server: &str, token: Option<&Path>| {
        let mut command = narrows();
        command.args(["run", "--json", "--route", "layer3", "--server", server, "--head"]).arg(&head);
        command.args(token.map(|token| format!("--token-file={}", token.display())));
        command.arg(&input).output().unwrap()
    };

    let output = run(server.address(), None);
    assert_eq!(output.status.code(), Some(78), "{}", stderr(&output));
    assert!(stderr(&output).contains("--token-file"), "{}", stderr(&output));
    for address in [server.address(), link.address()] {
        let output = run(address, Some(&token));
        assert!(output.status.success(), "{}", stderr(&output));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["requests"].as_array().unwrap().len(), 2);
        assert_eq!(report["requests"][0]["answered_by"], "server");
    }
    let http = server.said["http"].as_str().unwrap();
    assert!(get(http, "/v2/health/ready").starts_with("HTTP/1.1 200"));
    assert!(get(http, "/").contains("<title>narrows"));
    assert!(get(http, "/metrics").starts_with("HTTP/1.1 401"));
}

#[cfg(unix)]
#[test]
fn sigterm_ends_a_server_in_order() {
    let mut server = Serving::start(narrows().args(["serve", "--demo-cut", "layer3"]));
    let killed = Command::new("kill").args(["-TERM", &server.child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
}
