//! What it takes to measure a split network: images with labels, features at a cut, accuracy, time.

mod accuracy;
mod batch;
mod choice;
mod dataset;
mod link;
mod network;
mod rate;
mod text;
mod timing;

pub use accuracy::Accuracy;
pub use batch::Batch;
pub use choice::smallest_agreeing;
pub use dataset::Dataset;
pub use link::{parse_rate, rate_in_words, reference_rate};
pub use network::{Half, demo_model, engine, without_batch};
pub use rate::profile_within;
pub use text::{Coding, SplitText, cosine, token_inputs};
pub use timing::{Samples, timed};

/// Cuts of the [demo network](demo_model) between its three groups of layers.
pub const DEMO_CUTS: [&str; 3] = ["layer1", "layer2", "layer3"];
/// The name of the demo network.
pub const DEMO_MODEL: &str = "fashion-resnet";
