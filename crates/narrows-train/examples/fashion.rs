//! Train the demo network on Fashion-MNIST and say what became of it.
//!
//!     cargo run --release --example fashion -- DATA OUT [--bits B | --float] [--seed N] [--epochs N]
//!
//! `DATA` is the folder of `bench/fashion-mnist`; `OUT.safetensors`, `OUT.onnx` and `OUT.json` are written, and
//! `OUT.resume` while it runs.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Instant;

use flate2::read::GzDecoder;
use narrows_train::{Device, Examples, Goal, Model, Precision, Settings, Trainer};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| arguments.iter().position(|a| a == name).and_then(|at| arguments.get(at + 1));
    let number = |name: &str| value(name).map(|text| text.parse::<f64>()).transpose();
    let [data, out] = arguments.get(..2).ok_or("DATA and OUT are missing")? else { unreachable!() };
    let mut settings = Settings::default();
    if let Some(bits) = number("--bits")? {
        settings.precision = Precision::Learned { bins: 31, goal: Goal::BitsPerWeight(bits) };
    }
    if arguments.iter().any(|argument| argument == "--float") {
        settings.precision = Precision::Float;
        settings.distillation = 0.0;
    }
    if let Some(share) = number("--distillation")? {
        settings.distillation = share as f32;
    }
    settings.seed = number("--seed")?.unwrap_or(1.0) as u64;
    settings.epochs = number("--epochs")?.unwrap_or(4.0) as usize;
    let (mut training, mut test) = (read(Path::new(data), "train")?, read(Path::new(data), "t10k")?);
    if let Some(images) = number("--images")? {
        training.truncate(images as usize);
        test.truncate(images as usize);
    }
    let model = Model::open(Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../models/fashion-resnet/model.onnx"
    )))?;
    let (device, resume) = (Device::flex(), PathBuf::from(format!("{out}.resume")));
    let started = Instant::now();
    let mut trainer = if resume.exists() {
        Trainer::resume(&model, training, settings, &device, &resume)?
    } else {
        Trainer::new(&model, training, settings, &device)?
    };
    println!("held out: {:.2} %; {:?}", trainer.original_accuracy(), started.elapsed());
    while !trainer.is_done() {
        let report = trainer.step()?;
        if report.steps % 25 == 0 {
            println!(
                "{:5}/{} loss {:.4} bits {:?} {:?}",
                report.steps,
                trainer.steps(),
                report.loss,
                report.bits_per_weight,
                started.elapsed()
            );
        }
        if report.steps % 100 == 0 {
            trainer.save(&resume)?;
        }
    }
    let trained = trainer.finish();
    std::fs::write(format!("{out}.safetensors"), trained.checkpoint())?;
    std::fs::write(format!("{out}.onnx"), trained.onnx(&model))?;
    let accuracy = trained.accuracy(&test, &device)?;
    println!("test: {accuracy:.2} %, {:?} after {:?}", trained.rate(), started.elapsed());
    println!(
        "total {:.4}, entropy {:.4} bits a weight",
        trained.rate().bits_per_weight(),
        trained.rate().entropy_per_weight()
    );
    let json = serde_json::json!({ "accuracy": accuracy, "rate": trained.rate(), "layers": trained.layers(), "curve": trained.curve(), "wall_seconds": started.elapsed().as_secs_f64() });
    std::fs::write(format!("{out}.json"), serde_json::to_string(&json)?)?;
    Ok(())
}

/// Images and labels of one of the two sets.
fn read(folder: &Path, set: &str) -> Result<Examples, Failure> {
    let idx = |name: &str, header: usize| -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        GzDecoder::new(File::open(folder.join(format!("{set}-{name}-ubyte.gz")))?).read_to_end(&mut bytes)?;
        Ok(bytes.split_off(header))
    };
    Ok(Examples::new([1, 28, 28], idx("images-idx3", 16)?, idx("labels-idx1", 8)?)?)
}
