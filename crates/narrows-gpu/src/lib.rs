//! The stream of [`narrows`] on GPUs, coded where the tensor lives: same frames in, same values out, bit for bit.
//!
//! | feature | module | devices |
//! |---|---|---|
//! | `wgpu` | `webgpu` | Vulkan and Metal |
//!
//! `docs/gpu.md` says how fast it can be at best, and what chunks cost.

#![forbid(unsafe_code)]

mod arrangement;
mod error;
#[doc(hidden)]
pub mod launch;
mod plan;
pub mod reference;
#[cfg(feature = "wgpu")]
pub mod webgpu;

pub use error::{Error, Result};
