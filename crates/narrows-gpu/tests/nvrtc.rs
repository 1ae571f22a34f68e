//! Kernels made for one kind of job by NVRTC, as far as that goes without a GPU: machine code for an H100.
#![cfg(feature = "cuda")]

use std::process::Command;

use narrows::{Dtype, EncodeOptions, Shape};
use narrows_gpu::cuda::special;
use narrows_gpu::launch::{EncodeBatch, Half};

/// Where Python's package has NVRTC; nowhere, with the reason printed, without it.
fn folder() -> Option<String> {
    let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let find = "import nvidia.cuda_nvrtc as n; print(list(n.__path__)[0] + '/lib')";
    match Command::new(&python).args(["-c", find]).output() {
        Ok(output) if output.status.success() => {
            Some(String::from_utf8(output.stdout).unwrap().trim().to_owned())
        }
        _ => {
            eprintln!("skipped: {python} has no NVRTC (pip install nvidia-cuda-nvrtc-cu12==12.0.140)");
            None
        }
    }
}

const DECODING: &str = "job.alphabet=16u;job.probability_bits=12u;job.tables=1u;job.chooser=0u;job.channels=1u;\
                        job.bucket_shift=0xffffffffu;job.dtype=0u;job.history=0;job.geometry.lanes=32u;";

#[test]
#[ignore = "runs in a process of its own, where the loader finds NVRTC"]
fn with_nvrtc() {
    let shape = Shape::new(&[128, 28, 28]).unwrap();
    let batch = EncodeBatch::new(&EncodeOptions::bits(4), Dtype::F32, &shape, None).unwrap();
    for (half, constants) in [(Half::Decode, DECODING.to_owned()), (Half::Encode, batch.constants())] {
        let code = special::compile((9, 0), half, &constants).unwrap().expect("NVRTC is there");
        assert_eq!(&code[..4], b"\x7fELF");
        for kernel in half.kernels() {
            let section = format!("\0.text.{}\0", kernel.name());
            let is_there = code.windows(section.len()).any(|window| window == section.as_bytes());
            assert!(is_there, "no kernel {}", kernel.name());
        }
    }
    assert_eq!(special::compile((1, 0), Half::Decode, DECODING), Ok(None), "NVRTC knows no such device");
    let refused = special::compile((9, 0), Half::Decode, "job.no_such_field=1u;").unwrap_err();
    assert!(refused.to_string().contains("no_such_field"), "{refused}");
    println!("machine code was made");
}

#[test]
fn nvrtc_makes_machine_code_of_every_kernel_with_constants() {
    let Some(folder) = folder() else { return };
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "with_nvrtc", "--ignored", "--nocapture"]).env("LD_LIBRARY_PATH", folder);
    let output = child.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("machine code was made"), "{said}{output:?}");
}

#[test]
fn without_nvrtc_nothing_is_made_and_nothing_fails() {
    // SAFETY: only looks whether the library can be loaded.
    #[allow(unsafe_code)]
    if unsafe { narrows_gpu::cuda::cudarc::nvrtc::sys::is_culib_present() } {
        eprintln!("skipped: NVRTC is installed");
        return;
    }
    assert_eq!(special::compile((9, 0), Half::Decode, DECODING), Ok(None));
}
