//! Programs of others against the server: the KServe client of `PyPI`, and a browser. Skipped, with
//! the reason, where they are missing.

mod common;

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::Arc,
};

use common::*;
use narrows_link::{
    Failure, Running, Server, ServerOptions,
    http::{PlainTensor, TensorSpec, Tensors},
};

/// Frames are the values' bytes.
struct Bare;

impl Tensors for Bare {
    fn specs(&self, _: &str) -> Option<(TensorSpec, TensorSpec)> {
        let spec = |name: &str| TensorSpec { name: name.into(), shape: vec![-1] };
        Some((spec("features"), spec("logits")))
    }

    fn encode(&self, _: &str, tensor: &PlainTensor) -> Result<Vec<u8>, Failure> {
        Ok(tensor.values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    fn decode(&self, _: &str, reply: &[u8]) -> Result<PlainTensor, Failure> {
        let values: Vec<f32> = reply.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        Ok(PlainTensor { shape: vec![values.len()], values })
    }
}

fn http_server() -> (Running, String) {
    let options = ServerOptions { http: Some(([127, 0, 0, 1], 0).into()), ..limits().into() };
    let server = Server::bind("127.0.0.1:0", options).expect("a server").with_tensors(Arc::new(Bare));
    let running = server.spawn(Echo).expect("a server");
    let address = running.http_addr().expect("HTTP was asked for").to_string();
    (running, address)
}

fn run(command: &mut Command) -> Result<Output, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        Ok(output)
    } else {
        Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)))
    }
}

/// A Python with the `PyPI` package `tritonclient[http]`, made once and kept; or why there is none.
fn python() -> Result<PathBuf, String> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kserve-client");
    let python = folder.join("bin/python");
    let is_there = |python: &Path| run(Command::new(python).args(["-c", "import tritonclient.http"])).is_ok();
    if !is_there(&python) {
        run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
        let mut pip = Command::new(&python);
        run(pip.args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "tritonclient[http]",
        ]))?;
    }
    Ok(python)
}

#[test]
fn an_unmodified_kserve_client_gets_right_answers() {
    let python = match python() {
        Ok(python) => python,
        Err(reason) => return println!("skipped: no Python with tritonclient[http]: {reason}"),
    };
    let (_server, address) = http_server();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kserve_client.py");
    run(Command::new(python).args([script, &address])).expect("a client that is content");
}

#[test]
fn the_live_page_shows_figures_in_a_browser() {
    let (server, address) = http_server();
    let mut client = client_of(&server);
    for _ in 0..20 {
        client.request("echo", &[1; 500]).expect("an echo");
    }
    // Until a second of the page has ended.
    std::thread::sleep(millis(1200));
    let profile = Path::new(env!("CARGO_TARGET_TMPDIR")).join("browser");
    let mut browser = Command::new("chromium");
    browser.args(["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1180,900"]);
    browser.arg(format!("--user-data-dir={}", profile.display()));
    browser.args(["--virtual-time-budget=3000", "--dump-dom"]).arg(format!("http://{address}/"));
    let page = match run(&mut browser) {
        Ok(output) => String::from_utf8(output.stdout).expect("text"),
        Err(reason) => return println!("skipped: no headless Chromium: {reason}"),
    };
    assert!(page.contains(">live</span>"), "not live: {page}");
    for part in ["Link rate", "Ratio", "Chosen Q", "Errors", "20 in all", "2.0", "serving echo", "tail"] {
        assert!(page.contains(part), "no {part:?} in {page}");
    }
    assert!(page.matches("<path").count() >= 4, "no lines are drawn");
}
