//! The checked-in PTX is what the sources give.

use std::path::PathBuf;
use std::process::{Command, Output};

use sha2::{Digest, Sha256};

fn kernels() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("kernels")
}

#[test]
fn the_ptx_names_the_sources_it_was_made_of() {
    let mut sources: Vec<_> = kernels().read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    sources.retain(|path| path.extension().is_some_and(|extension| extension == "cuh" || extension == "cu"));
    sources.sort();
    let mut hasher = Sha256::new();
    sources.iter().for_each(|source| hasher.update(std::fs::read(source).unwrap()));
    let hash = hasher.finalize().iter().fold(String::new(), |hash, byte| hash + &format!("{byte:02x}"));
    let ptx = std::fs::read_to_string(kernels().join("narrows.ptx")).unwrap();
    assert!(
        ptx.lines().next().unwrap().ends_with(&hash),
        "narrows.ptx is older than its sources: run kernels/compile.py"
    );
    assert!(ptx.contains(".version 8.0\n"), "drivers of CUDA 12.0 read PTX up to version 8.0");
}

/// What `compile.py` says; nothing, with the reason printed, where there is no Python or no NVRTC.
fn compiler(option: &str) -> Option<Output> {
    let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".to_owned());
    match Command::new(&python).arg(kernels().join("compile.py")).arg(option).output() {
        Err(error) => {
            eprintln!("skipped: {python}: {error} (PYTHON names another)");
            None
        }
        Ok(output) if output.status.code() == Some(77) => {
            eprintln!("skipped: {}", String::from_utf8_lossy(&output.stderr));
            None
        }
        Ok(output) => Some(output),
    }
}

#[test]
fn the_compiler_makes_the_same_ptx_of_the_sources() {
    let Some(output) = compiler("--check") else { return };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn no_kernel_spills_registers_on_todays_devices() {
    let Some(output) = compiler("--report") else { return };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for (kernel, usage) in report.as_object().unwrap() {
        for architecture in ["sm_80", "sm_90"] {
            let usage = &usage[architecture];
            eprintln!("{kernel} on {architecture}: {usage}");
            assert_eq!(usage["spill_stores"], 0, "{kernel} on {architecture}: {usage}");
        }
    }
}
