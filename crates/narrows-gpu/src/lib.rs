//! The stream of [`narrows`] on GPUs, coded where the tensor lives: same frames in, same values out, bit for bit.
//!
//! | feature | module | devices |
//! |---|---|---|
//! | `cuda` | `cuda` | NVIDIA, through the driver alone |
//! | `wgpu` | `webgpu` | Vulkan and Metal |
//!
//! `docs/gpu.md` says how fast it can be at best, and what chunks cost.

// Calls into the CUDA driver allow it; nothing else does.
#![deny(unsafe_code)]

mod arrangement;
#[cfg(feature = "cuda")]
pub mod cuda;
mod error;
#[doc(hidden)]
pub mod launch;
mod plan;
pub mod reference;
#[cfg(feature = "wgpu")]
pub mod webgpu;

pub use error::{Error, Result};
