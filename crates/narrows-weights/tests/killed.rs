//! A process that packs is killed at any moment: the file is the old one or the new one, whole.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use common::Random;
use narrows_weights::{Checkpoint, Mode, PackOptions, PackedFile, Settings, pack_checkpoint};
use safetensors::serialize_to_file;
use safetensors::tensor::{Dtype, TensorView};

const FOLDER: &str = "NARROWS_TEST_PACK_IN";
const KILLS: usize = 25;

fn checkpoints(folder: &Path) -> [PathBuf; 2] {
    ["a", "b"].map(|name| folder.join(name).with_extension("safetensors"))
}

/// What the killed process does; only ever started by the test below.
#[test]
#[ignore = "runs until it is killed"]
fn pack_until_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let folder = Path::new(&folder);
    let [a, b] = checkpoints(folder).map(|path| Checkpoint::open(path).unwrap());
    let mode = Mode::Quantize(Settings { bits: 3.0, ..Settings::default() }, None);
    for checkpoint in [&a, &b].into_iter().cycle() {
        let path = folder.join("packed.safetensors");
        pack_checkpoint(checkpoint, &path, &mode, &PackOptions::default(), |_| {}).unwrap();
    }
}

#[test]
fn a_killed_process_leaves_the_old_file_or_the_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut random = Random(3);
    let packed = folder.path().join("packed.safetensors");
    let mut wholes = Vec::new();
    for path in checkpoints(folder.path()) {
        let bytes: Vec<u8> = (0..96 * 64).flat_map(|_| (random.laplace(0.02) as f32).to_le_bytes()).collect();
        let view = TensorView::new(Dtype::F32, vec![96, 64], &bytes).unwrap();
        serialize_to_file([("layer.weight", view)], None, &path).unwrap();
        let mode = Mode::Quantize(Settings { bits: 3.0, ..Settings::default() }, None);
        let checkpoint = Checkpoint::open(&path).unwrap();
        pack_checkpoint(&checkpoint, &packed, &mode, &PackOptions::default(), |_| {}).unwrap();
        wholes.push(std::fs::read(&packed).unwrap());
    }
    // Later and later, until it has been killed with either in place.
    let mut seen = [0; 2];
    for kill in 0.. {
        if kill >= KILLS && seen.iter().all(|&count| count > 0) {
            break;
        }
        assert!(kill < 10 * KILLS, "it was killed too early to have written anything: {seen:?}");
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "pack_until_killed"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(5 + random.below(10 + 2 * kill) as u64));
        assert!(child.try_wait().unwrap().is_none(), "it packs on until it is killed");
        child.kill().unwrap();
        child.wait().unwrap();
        let found = std::fs::read(&packed).unwrap();
        let which = wholes.iter().position(|whole| *whole == found).expect("one of the two, whole");
        seen[which] += 1;
        PackedFile::open(&packed).unwrap().matrix("layer.weight").unwrap().quantized().unwrap();
    }
}
