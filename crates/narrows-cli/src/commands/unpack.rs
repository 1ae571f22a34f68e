//! `narrows unpack`: packed weights to a plain checkpoint.

use std::path::PathBuf;

use narrows_weights::{PackedFile, unpack_file};

use crate::destination::{Destination, Existing};
use crate::failure::{Failure, Result};
use crate::output::{Output, grouped};

const EXAMPLES: &str = "\
Examples:
  narrows unpack model.packed.safetensors               model.safetensors, dense
  narrows unpack model.packed.safetensors -o copy.safetensors";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// A file of packed weights
    packed: PathBuf,
    /// File to write [default: beside the input, without .packed]
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
        args.packed.with_file_name(format!("{stem}.safetensors"))
    });
    if path == args.packed {
        return Err(Failure::usage("the output is the input").hint("name another file with -o"));
    }
    Destination::File(path.clone()).check(Existing::replace_if(args.force))?;
    let progress = output.progress(packed.names().len() as u64, "tensors");
    let bytes = unpack_file(&packed, &path, |_| progress.inc(1)).map_err(failed)?;
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
