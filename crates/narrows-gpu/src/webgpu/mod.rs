//! Vulkan and Metal through wgpu: for edge devices, and for any GPU that is not NVIDIA's.
//!
//! ```no_run
//! use narrows::{EncodeOptions, TensorView};
//! use narrows_gpu::webgpu::{Decoder, Encoder, Gpu};
//!
//! let gpu = Gpu::new()?;
//! let features = vec![0.5_f32; 128 * 28 * 28];
//! let frame = Encoder::new(&gpu, EncodeOptions::bits(4))?.encode(&TensorView::new(&features, &[128, 28, 28])?)?;
//! let tensor = Decoder::new(&gpu).decode(&frame)?;
//! # Ok::<(), narrows_gpu::Error>(())
//! ```

mod decoder;
mod device;
mod encoder;
mod job;

pub use decoder::Decoder;
pub use device::{Gpu, Vote};
pub use encoder::Encoder;
