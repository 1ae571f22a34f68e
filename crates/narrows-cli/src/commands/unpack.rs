//! `narrows unpack`: packed weights to a plain checkpoint, or back into an ONNX model.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use narrows_split::{Model, NewWeight};
use narrows_weights::net::dense;
use narrows_weights::{PackedFile, Tensor, unpack_file};

use crate::destination::{Destination, Existing};
use crate::failure::{Failure, Result};
use crate::output::{Output, grouped};

const EXAMPLES: &str = "\
Examples:
  narrows unpack model.packed.safetensors               model.safetensors, dense
  narrows unpack model.packed.safetensors -o copy.safetensors
  narrows unpack model.packed.safetensors --onnx model.onnx
                                                        model.int8.onnx: weights as int8 constants with scales";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// A file of packed weights
    packed: PathBuf,
    /// Put the weights into this ONNX model: packed ones as int8 with a scale (`DequantizeLinear`), others as float32
    #[arg(long, value_name = "MODEL")]
    onnx: Option<PathBuf>,
    /// File to write [default: beside the input, without .packed; with --onnx ending in .int8.onnx]
    #[arg(long, short)]
    output: Option<PathBuf>,
    /// Replace a file that is there already
    #[arg(long)]
    force: bool,
}

pub fn run(args: &Args, output: &Output) -> Result<()> {
    let failed = |error: narrows_weights::Error| {
        Failure::weights(format!("cannot unpack {}", args.packed.display()), &error)
    };
    let packed = PackedFile::open(&args.packed).map_err(failed)?;
    let path = args.output.clone().unwrap_or_else(|| {
        let name = args.packed.file_name().unwrap_or_default().to_string_lossy();
        let stem = name.trim_end_matches(".safetensors").trim_end_matches(".packed");
        let ending = if args.onnx.is_some() { "int8.onnx" } else { "safetensors" };
        args.packed.with_file_name(format!("{stem}.{ending}"))
    });
    if path == args.packed || Some(&path) == args.onnx.as_ref() {
        return Err(Failure::usage("the output is the input").hint("name another file with -o"));
    }
    Destination::File(path.clone()).check(Existing::replace_if(args.force))?;
    let progress = output.progress(packed.names().len() as u64, "tensors");
    let bytes = match &args.onnx {
        Some(model) => {
            into_onnx(&packed, (args.packed.as_path(), model.as_path()), &path, || progress.inc(1))?
        }
        None => unpack_file(&packed, &path, |_| progress.inc(1)).map_err(failed)?,
    };
    progress.finish_and_clear();
    let file = path.display().to_string();
    if output.is_json() {
        let tensors = packed.names().len();
        return output.print_json(&serde_json::json!({ "file": file, "bytes": bytes, "tensors": tensors }));
    }
    if output.is_quiet() {
        return Ok(());
    }
    output.print(format!("{file}: {} tensors, {} bytes", packed.names().len(), grouped(bytes)))
}

/// The model with the packed file's weights; its bytes.
fn into_onnx(
    packed: &PackedFile,
    (file, model): (&Path, &Path),
    path: &Path,
    mut each: impl FnMut(),
) -> Result<u64> {
    let failed =
        |error: narrows_weights::Error| Failure::weights(format!("cannot unpack {}", file.display()), &error);
    let mut new = HashMap::new();
    for name in packed.names() {
        let weight = match packed.tensor(&name).map_err(failed)? {
            Tensor::Packed(matrix) => {
                let values =
                    matrix.values(0..matrix.rows()).map_err(|error| failed(error.in_tensor(&name)))?;
                NewWeight::Int8 { values, scales: matrix.grid().steps().to_vec() }
            }
            Tensor::Lossless(_) | Tensor::Plain(_) => {
                NewWeight::Float32(dense(packed, &name).map_err(failed)?.0)
            }
        };
        new.insert(name, weight);
        each();
    }
    let read = Model::read(model)
        .map_err(|error| Failure::model(format!("cannot read {}", model.display()), &error))?;
    let written = read.with_weights(&new).map_err(|error| {
        let failure = Failure::model(format!("the weights do not go into {}", model.display()), &error);
        failure.hint("it should be the model whose weights were packed")
    })?;
    written
        .write(path)
        .map_err(|error| Failure::model(format!("cannot write {}", path.display()), &error))?;
    Ok(written.to_bytes().len() as u64)
}
