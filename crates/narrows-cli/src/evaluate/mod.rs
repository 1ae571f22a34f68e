//! What it takes to measure a split network: images with labels, features at a cut, accuracy, time.

mod accuracy;
pub mod adaptation;
mod batch;
mod choice;
mod codec;
mod dataset;
mod labels;
mod link;
mod measure;
mod network;
mod operating_points;
mod rate;
mod text;
mod text_model;
mod timing;

pub use accuracy::Accuracy;
pub use batch::Batch;
pub use choice::smallest_agreeing;
pub use codec::{Codec, Frames};
pub use dataset::Dataset;
pub use labels::{find_labels, read_labels};
pub use link::{parse_factor, parse_rate, parse_time, rate_in_words, reference_rate};
pub use measure::{Features, Measured, answers, mean, measure_alike, percent_equal, percentile};
pub use network::{End, Half, demo_model, engine, read_half, without_batch};
pub use operating_points::{Coding, Outcome, RangeOf, Row, Table, measure as measure_operating_points};
pub use rate::profile_within;
pub use text::{Crossing, Far, SplitText, cosine, token_inputs};
pub use text_model::{Cutter, TextModel};
pub use timing::{Samples, timed};

/// Cuts of the [demo network](demo_model) between its three groups of layers.
pub const DEMO_CUTS: [&str; 3] = ["layer1", "layer2", "layer3"];
/// The name of the demo network.
pub const DEMO_MODEL: &str = "fashion-resnet";
