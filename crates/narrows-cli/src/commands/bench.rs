//! `narrows bench`: what the codec promises, measured on the demo network.

mod accuracy;
mod adapt;
mod network;
#[cfg(feature = "train")]
mod precision;
mod sizes;
#[cfg(target_arch = "x86_64")]
mod weights;

use crate::failure::Result;
use crate::output::Output;

const EXAMPLES: &str = "\
Examples:
  narrows bench sizes                                    frames against the reference method's, same symbols
  bench/fashion-mnist                                    fetches the data set into bench/out
  narrows bench accuracy --dataset bench/out/fashion-mnist
                                                         bytes at the same accuracy, on 10,000 images
  narrows bench adapt                                    a controller against fixed settings, on links that change
  narrows bench network PACKED --model MODEL             a network from packed weights: accuracy, memory, time
  narrows bench weights                                  products with packed weights against dense ones";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Sizes and times of frames of the same symbols
    Sizes(sizes::Args),
    /// Bytes needed to keep the accuracy
    Accuracy(accuracy::Args),
    /// Missed deadlines and accuracy on links that change: the controller against fixed settings
    Adapt(adapt::Args),
    /// Accuracy against bits a weight: fixed, allocated and learned precision, on one page
    #[cfg(feature = "train")]
    Precision(precision::Args),
    /// A network that runs from packed weights beside its float32 model: accuracy, memory, time
    Network(network::Args),
    /// Products with packed weights against dense ones, and decoding against rANS
    #[cfg(target_arch = "x86_64")]
    Weights(weights::Args),
}

pub fn run(args: &Args, output: &Output) -> Result<()> {
    match &args.what {
        What::Sizes(args) => sizes::run(args, output),
        What::Accuracy(args) => accuracy::run(args, output),
        What::Adapt(args) => adapt::run(args, output),
        What::Network(args) => network::run(args, output),
        #[cfg(feature = "train")]
        What::Precision(args) => precision::run(args, output),
        #[cfg(target_arch = "x86_64")]
        What::Weights(args) => weights::run(args, output),
    }
}
