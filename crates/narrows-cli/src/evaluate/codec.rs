//! Ways to send features, side by side.

use std::sync::Arc;

use narrows::{Decoder, EncodeOptions, Encoder, Tensor};

use crate::failure::{Failure, Result};

/// Turns features into bytes and back; what is compared.
pub trait Codec {
    /// Encode over `bytes`.
    fn encode(&mut self, features: &Tensor, bytes: &mut Vec<u8>) -> Result<()>;
    /// Decode over `features`.
    fn decode(&mut self, bytes: &[u8], features: &mut Tensor) -> Result<()>;
}

/// Frames.
pub struct Frames {
    encoder: Encoder,
    decoder: Decoder,
}

impl Frames {
    /// Frames as `options` ask; their profile is known at both ends.
    pub fn new(options: EncodeOptions) -> Result<Self> {
        let mut decoder = Decoder::new();
        if let Some(profile) = &options.profile {
            decoder.profiles_mut().insert(Arc::clone(profile));
        }
        let encoder = Encoder::new(options);
        let encoder = encoder.map_err(|error| Failure::codec("cannot set up an encoder", &error))?;
        Ok(Self { encoder, decoder })
    }
}

impl Codec for Frames {
    fn encode(&mut self, features: &Tensor, bytes: &mut Vec<u8>) -> Result<()> {
        let encoded = self.encoder.encode_into(&features.view(), bytes);
        encoded.map_err(|error| Failure::codec("cannot encode the features", &error))
    }

    fn decode(&mut self, bytes: &[u8], features: &mut Tensor) -> Result<()> {
        let decoded = self.decoder.decode_into(bytes, features);
        decoded.map_err(|error| Failure::codec("cannot decode the features", &error))
    }
}
