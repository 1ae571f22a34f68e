//! NVIDIA GPUs. The driver is loaded at run time: without one, [`Gpu::new`] says so.
//!
//! ```no_run
//! use narrows::{EncodeOptions, TensorView};
//! use narrows_gpu::cuda::{Decoder, Encoder, Gpu};
//!
//! let gpu = Gpu::new(0)?;
//! let features = vec![0.5_f32; 128 * 28 * 28];
//! let frame = Encoder::new(&gpu, EncodeOptions::bits(4))?.encode(&TensorView::new(&features, &[128, 28, 28])?)?;
//! let tensor = Decoder::new(&gpu)?.decode(&frame)?;
//! # Ok::<(), narrows_gpu::Error>(())
//! ```
//!
//! Tensors that already live on the device are coded from and to it: `stage` says what is where, `launch` puts the
//! kernels on the caller's stream (and nothing else, so that a CUDA graph can capture it and replay it), `check` waits
//! and says what became of them. Nothing is allocated after the first call of a size.
//!
//! `specialize` compiles the kernels once more for one kind of tensor, where NVRTC is installed.

// Calls into the driver, and memory that only its user knows the life of.
#![allow(unsafe_code)]

mod decoder;
mod device;
mod encoder;
#[doc(hidden)]
pub mod special;

pub use cudarc;
pub use decoder::Decoder;
pub use device::{DeviceMemory, Gpu};
pub use encoder::Encoder;
