//! Compiles the C coders that no crate offers as they are meant to be built: htscodecs with every SIMD path,
//! and FSE and Huff0 (which `zstd-sys` compiles, but does not bind).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use serde_json::Value;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=native");
    let enabled = |feature: &str| env::var_os(format!("CARGO_FEATURE_{feature}")).is_some();
    if enabled("HTSCODECS") {
        htscodecs(&sources("hts-sys").join("htslib/htscodecs/htscodecs"));
    }
    if enabled("ZSTD") {
        let library = sources("zstd-sys").join("zstd/lib");
        cc::Build::new().opt_level(3).include(library).file("native/zstd_entropy.c").compile("zstd_entropy");
    }
    println!("cargo::rustc-env=RUSTC_VERSION={}", first_line(&env::var("RUSTC").unwrap(), "--version"));
    println!("cargo::rustc-env=CC_VERSION={}", first_line("cc", "--version"));
}

fn first_line(program: &str, argument: &str) -> String {
    let output = Command::new(program).arg(argument).output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).lines().next().unwrap_or("none").to_owned()
}

/// The folder of a locked dependency's sources.
fn sources(package: &str) -> PathBuf {
    let arguments = ["metadata", "--format-version=1", "--locked"];
    let output = Command::new(env::var("CARGO").unwrap()).args(arguments).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{errors}"));
    let packages = metadata["packages"].as_array().expect("packages");
    let found = packages.iter().find(|found| found["name"] == package).expect("the package is in Cargo.lock");
    Path::new(found["manifest_path"].as_str().unwrap()).parent().unwrap().to_owned()
}

/// Two builds of the rANS coders: as released, and with the hardware gathers that release 1.6 replaced for
/// the sake of processors slowed down against "Downfall".
fn htscodecs(folder: &Path) {
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap());
    let x86 = env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "x86_64");
    let simd = ["SSE4_1", "SSSE3", "POPCNT", "AVX2", "AVX512"].map(|name| format!("#define HAVE_{name} 1\n"));
    fs::write(out.join("config.h"), if x86 { simd.concat() } else { String::new() }).unwrap();

    let build = || {
        let mut build = cc::Build::new();
        build.opt_level(3).warnings(false).include(&out).include(folder);
        build
    };
    let shared = ["pack.c", "rle.c", "utils.c"].map(|name| folder.join(name));
    build().files(shared).compile("htscodecs_shared");

    let portable = ["rANS_static4x16pr.c", "rANS_static32x16pr.c", "rANS_static32x16pr_neon.c"];
    let paths: [(&str, &[&str]); 3] = [
        ("sse4", &["-msse4.1", "-mssse3", "-mpopcnt"]),
        ("avx2", &["-mavx2", "-mpopcnt"]),
        ("avx512", &["-mavx512f", "-mpopcnt"]),
    ];
    for variant in ["released", "gather"] {
        let variant_build = || {
            let mut build = build();
            if variant == "gather" {
                let header = env::current_dir().unwrap().join("native/htscodecs_gather.h");
                build.define("USE_GATHER", None).flag("-include").flag(header);
            }
            build
        };
        let mut objects = variant_build();
        objects.files(portable.map(|name| folder.join(name)));
        for (name, flags) in paths.iter().filter(|_| x86) {
            let mut path = variant_build();
            flags.iter().for_each(|flag| _ = path.flag(flag));
            path.file(folder.join(format!("rANS_static32x16pr_{name}.c")));
            objects.objects(path.compile_intermediates());
        }
        objects.compile(&format!("htscodecs_{variant}"));
    }
    // For whichever of the archives above comes first.
    println!("cargo::rustc-link-lib=static=htscodecs_shared");
    println!("cargo::rustc-link-lib=m");
}
