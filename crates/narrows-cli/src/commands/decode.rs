//! `narrows decode`: a frame to a tensor.

use std::path::PathBuf;

use narrows::{Decoder, Limits};

use crate::destination::{Destination, Existing, Format};
use crate::failure::{Failure, Result};
use crate::input::Source;
use crate::options;
use crate::output::{Output, grouped};

const EXAMPLES: &str = "\
Examples:
  narrows decode features.nrw                       features.npy
  narrows decode features.nrw -o out.safetensors    as safetensors, which holds bf16 too
  narrows decode features.nrw --profile cut.nrp     a frame that was coded with a profile
  receive | narrows decode - | python analyse.py    a frame in, .npy out";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The frame; - reads standard input
    frame: PathBuf,
    /// File to write, ending in .npy or .safetensors, or - for standard output [default: FRAME with .npy
    /// for .nrw]
    #[arg(long, short)]
    output: Option<PathBuf>,
    /// Format to write [default: as the output's name says; npy on standard output]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// A profile that the frame may name; may be given several times
    #[arg(long, value_name = "FILE")]
    profile: Vec<PathBuf>,
    /// Refuse frames of more elements than this
    #[arg(long, value_name = "N", default_value_t = Limits::default().max_elements)]
    max_elements: u64,
    /// Replace a file that is there already
    #[arg(long, short)]
    force: bool,
}

pub fn run(args: &Args, output: &Output) -> Result<()> {
    let source = Source::from(args.frame.as_path());
    let destination = args.destination(&source);
    let output = if destination == Destination::Stdout { output.beside_data() } else { output.clone() };
    let format = match args.format {
        Some(format) => format,
        None => Format::of(&destination)?,
    };
    destination.check(Existing::replace_if(args.force))?;
    let profiles = options::profiles(&args.profile)?;
    let frame = source.read()?;
    let limits = Limits { max_elements: args.max_elements };
    let mut decoder = Decoder::new().with_limits(limits).with_profiles(profiles);
    let decoded = decoder.decode(&frame);
    let tensor = decoded.map_err(|error| Failure::codec(format!("cannot decode {source}"), &error))?;
    destination.write(&format.write(&tensor)?)?;

    let (dtype, shape) = (tensor.dtype(), tensor.shape());
    let bytes = shape.elements() * dtype.size();
    if output.is_json() {
        let path = match &destination {
            Destination::Stdout => None,
            Destination::File(path) => Some(path),
        };
        let (name, dims) = (dtype.name(), shape.dims());
        return output.print_json(&serde_json::json!({
            "output": path, "dtype": name, "shape": dims, "frame_bytes": frame.len(), "bytes": bytes,
        }));
    }
    let (coded, bytes) = (grouped(frame.len() as u64), grouped(bytes as u64));
    output.note(format_args!("{destination}: {dtype} {shape}, {coded} -> {bytes} bytes"));
    Ok(())
}

impl Args {
    fn destination(&self, source: &Source) -> Destination {
        match (&self.output, source) {
            (Some(path), _) => Destination::from(path.as_path()),
            (None, Source::Stdin) => Destination::Stdout,
            (None, Source::File(path)) => {
                let extension = match self.format {
                    Some(Format::Safetensors) => "safetensors",
                    Some(Format::Npy) | None => "npy",
                };
                Destination::File(path.with_extension(extension))
            }
        }
    }
}
