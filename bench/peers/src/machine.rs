//! The machine that a run is about.

use std::fs;
use std::process::Command;

use serde::Serialize;

/// Instruction sets worth knowing of.
const FLAGS: [&str; 13] = [
    "sse4_1",
    "avx2",
    "bmi2",
    "avx512f",
    "avx512bw",
    "avx512dq",
    "avx512vl",
    "avx512vbmi",
    "avx512_vbmi2",
    "avx512_bitalg",
    "avx512_fp16",
    "gfni",
    "asimd",
];

/// The machine and what the program was built with.
#[derive(Serialize)]
pub struct Machine {
    /// Processor model.
    pub cpu: String,
    /// Processors of the machine; a run uses one.
    pub cores: usize,
    /// Those of [`FLAGS`] it has.
    pub flags: Vec<String>,
    /// Whether a hypervisor is between.
    pub virtual_machine: bool,
    /// The processors this run may use.
    pub pinned_to: String,
    /// Rust compiler.
    pub rustc: &'static str,
    /// C compiler.
    pub cc: &'static str,
    /// The repository's commit.
    pub commit: String,
    /// UTC.
    pub date: String,
}

impl Machine {
    /// This one, now.
    pub fn here() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |name: &str| {
            let line = cpuinfo.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
        };
        let all = field("flags").or_else(|| field("Features")).unwrap_or_default();
        let has = |flag: &&str| all.split_whitespace().any(|found| found == *flag);
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        Self {
            cpu: field("model name").unwrap_or_else(|| std::env::consts::ARCH.into()),
            cores: cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
            flags: FLAGS.iter().filter(|flag| has(flag)).map(|&flag| flag.to_owned()).collect(),
            virtual_machine: has(&"hypervisor"),
            pinned_to: allowed.unwrap_or("unknown").trim().to_owned(),
            rustc: env!("RUSTC_VERSION"),
            cc: env!("CC_VERSION"),
            commit: output("git", &["describe", "--always", "--dirty", "--exclude=*"]),
            date: output("date", &["-u", "+%Y-%m-%dT%H:%MZ"]),
        }
    }
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output =
        Command::new(program).args(arguments).output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).trim().to_owned()
}
