//! Decode everything in a packed file into memory, tensor by tensor on one core, and say how long it took.
//!
//!     cargo run --release -p narrows-weights --example decode -- PACKED [BINS]
//!
//! Prints JSON: for each tensor how it is stored, and the seconds of the fastest of some passes. BINS is a safetensors file to write
//! with the bins of packed tensors as I8, for other coders to be measured on.

use std::path::Path;
use std::time::Instant;

use narrows_weights::{PackedFile, Tensor, Unpacker, Writer};
use safetensors::tensor::Dtype;

const PASSES: usize = 5;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (packed, bins) = match args.as_slice() {
        [packed] => (packed, None),
        [packed, bins] => (packed, Some(Path::new(bins))),
        _ => return Err("usage: decode PACKED [BINS]".into()),
    };
    let file = PackedFile::open(packed)?;
    let mut writer = bins.map(Writer::dense);
    let (mut tensors, mut unpacker) = (Vec::new(), Unpacker::default());
    for name in file.names() {
        let tensor = file.tensor(&name)?;
        let (mut fastest, mut bytes, mut values) = (f64::INFINITY, 0, Vec::new());
        let size = unpacked_bytes(&tensor)?;
        for _ in 0..PASSES {
            let start = Instant::now();
            match &tensor {
                Tensor::Packed(matrix) => matrix.values_into(0..matrix.rows(), &mut values)?,
                tensor => {
                    // Memory that is new each time, as what is compared with takes it.
                    let mut out = Vec::with_capacity(size);
                    unpacker.unpack(tensor, |part| {
                        out.extend_from_slice(part);
                        Ok(())
                    })?;
                    bytes = std::hint::black_box(out).len();
                }
            }
            fastest = fastest.min(start.elapsed().as_secs_f64());
        }
        let stored = file.stored(&name)?.len();
        let (kind, layout, steps, entropy) = match &tensor {
            Tensor::Packed(matrix) => {
                let quantized = matrix.quantized()?;
                ("packed", Some(matrix.layout()), quantized.grid.steps().len(), Some(quantized.entropy()))
            }
            Tensor::Lossless(_) => ("lossless", None, 0, None),
            Tensor::Plain(_) => ("plain", None, 0, None),
        };
        let elements = tensor.unpacked()?.1.iter().product::<usize>();
        tensors.push(serde_json::json!({
            "name": name, "kind": kind, "elements": elements, "bytes": stored, "unpacked_bytes": bytes,
            "seconds": fastest, "steps": steps, "entropy": entropy, "layout": layout,
        }));
        if let (Some(writer), Tensor::Packed(matrix)) = (&mut writer, &tensor) {
            let mut stream = writer.stream(&name, Dtype::I8, &[matrix.rows(), matrix.columns()])?;
            stream.write(&values.iter().map(|&value| value as u8).collect::<Vec<u8>>())?;
            stream.end()?;
        }
    }
    if let Some(writer) = writer {
        writer.finish(&std::collections::HashMap::new())?;
    }
    let (bytes, header_bytes) = file.bytes();
    let all = serde_json::json!({ "bytes": bytes, "header_bytes": header_bytes, "tensors": tensors });
    println!("{all}");
    Ok(())
}

fn unpacked_bytes(tensor: &Tensor) -> Result<usize, narrows_weights::Error> {
    let (dtype, shape) = tensor.unpacked()?;
    Ok(shape.iter().product::<usize>() * dtype.bitsize() / 8)
}
