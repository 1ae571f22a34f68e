//! Networks that run from packed weights: what is packed stays packed, in the mapped file.

pub(crate) mod bert;
mod conv;
mod linear;

pub use bert::Bert;
pub use conv::Conv2d;
pub use linear::{Linear, Weights};
