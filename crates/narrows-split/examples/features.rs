//! Real arrays for benchmarks: the demo network's features at its cuts, and its weights, as little-endian f32.
//!
//! ```console
//! $ cargo run --release -p narrows-split --example features -- bench/out
//! ```
//!
//! A file's name says what it holds: `layer1-669x32x28x28.f32` is the cut `layer1` for 669 images.

use std::error::Error;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use narrows_split::{Engine, Model, split};
use npyz::npz::NpzArchive;
use prost::Message as _;
use tract_onnx::pb;

/// Cuts, and the images whose features are written: 2^24 symbols at the first, 100,000 at the others.
const CUTS: [(&str, usize); 3] = [("layer1", 669), ("layer2", 64), ("layer3", 64)];
/// Smaller initialisers are biases and normalisation, which nobody quantises.
const LEAST_WEIGHTS: usize = 512;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args().nth(1).ok_or("usage: features FOLDER")?;
    let folder = Path::new(&folder);
    fs::create_dir_all(folder)?;
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/fashion-resnet");

    let mut archive = NpzArchive::open(demo.join("test-1000.npz"))?;
    let images = archive.by_name("images")?.ok_or("test-1000.npz has no images")?;
    let pixels_per_image = images.shape()[1..].iter().product::<u64>() as usize;
    let pixels: Vec<u8> = images.into_vec()?;

    let model = fs::read(demo.join("model.onnx"))?;
    for (cut, count) in CUTS {
        let head = Engine::load(&split(&Model::from_bytes(&model)?, cut)?.head)?;
        let dims: Vec<_> = head.output_shape()[1..].iter().map(usize::to_string).collect();
        let name = format!("{cut}-{count}x{}.f32", dims.join("x"));
        let mut file = BufWriter::new(File::create(folder.join(name))?);
        for image in pixels.chunks_exact(pixels_per_image).take(count) {
            let image: Vec<f32> = image.iter().map(|&pixel| f32::from(pixel) / 255.0).collect();
            write(&mut file, &head.run(&image)?)?;
        }
        file.flush()?;
    }

    let mut weights = Vec::new();
    for tensor in &pb::ModelProto::decode(&*model)?.graph.ok_or("the model has no graph")?.initializer {
        let elements = tensor.dims.iter().product::<i64>() as usize;
        if tensor.data_type == pb::tensor_proto::DataType::Float as i32 && elements >= LEAST_WEIGHTS {
            weights.push((tensor.name.clone(), floats(tensor)));
        }
    }
    for (index, (_, values)) in weights.iter().enumerate() {
        let mut file =
            BufWriter::new(File::create(folder.join(format!("weights-{index:02}-{}.f32", values.len())))?);
        write(&mut file, values)?;
        file.flush()?;
    }
    Ok(())
}

fn floats(tensor: &pb::TensorProto) -> Vec<f32> {
    if tensor.raw_data.is_empty() {
        return tensor.float_data.clone();
    }
    tensor.raw_data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

fn write(file: &mut impl Write, values: &[f32]) -> std::io::Result<()> {
    values.iter().try_for_each(|value| file.write_all(&value.to_le_bytes()))
}
