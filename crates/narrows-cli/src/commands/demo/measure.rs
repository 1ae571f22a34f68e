//! Sending every image's features in every way, and keeping count.

use indicatif::ProgressBar;
use narrows::{Decoder, Encoder, Tensor, encode_raw};
use narrows_link::Client;
use narrows_link::emulator::Link;
use narrows_split::Engine;
use serde::Serialize;

use super::method::Method;
use crate::evaluate::{Accuracy, Dataset, Half, Samples, timed};
use crate::failure::{Failure, Result};

/// The bit widths compared.
const BIT_WIDTHS: [u8; 5] = [2, 3, 4, 6, 8];
/// The bit width of float32 elements.
const RAW_BITS: u8 = 32;

/// One method at one bit width and one cut, over all images.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub cut: String,
    /// Bits of a symbol, before entropy coding.
    pub q: u8,
    pub method: Method,
    /// Mean over the images, whole frames.
    pub bytes_per_image: f64,
    /// Bytes of the float32 elements over bytes of the frame.
    pub ratio: f64,
    /// Median over the images, in the client's process.
    pub encode_us: f64,
    /// Median over the images, in the server's process.
    pub decode_us: f64,
    /// What the mean frame takes on the emulated link.
    pub link_ms: f64,
    /// Percent.
    pub top1: f64,
    /// Percentage points above the unsplit network.
    pub top1_delta: f64,
}

/// One method at one bit width, while images pass.
struct Contender {
    method: Method,
    bits: u8,
    /// None for RAW frames.
    encoder: Option<Encoder>,
    frame: Vec<u8>,
    bytes: u64,
    encode: Samples,
    decode: Samples,
    accuracy: Accuracy,
}

/// The client's side of the demo.
pub struct Session<'a> {
    client: Client,
    link: &'a Link,
    decoder: Decoder,
    logits: Tensor,
    /// What the whole network says of each image.
    unsplit: Vec<Vec<f32>>,
    unsplit_accuracy: Accuracy,
}

impl<'a> Session<'a> {
    /// Classify all images with the network in one piece, to compare with.
    pub fn new(
        client: Client,
        link: &'a Link,
        dataset: &Dataset,
        whole: &Engine,
        progress: &ProgressBar,
    ) -> Result<Self> {
        let mut unsplit_accuracy = Accuracy::default();
        let mut unsplit = Vec::with_capacity(dataset.len());
        for (image, label) in dataset.iter() {
            let logits = whole
                .run(&image)
                .map_err(|error| Failure::model("the unsplit network cannot classify an image", &error))?;
            unsplit_accuracy.record(&logits, label);
            unsplit.push(logits);
            progress.inc(1);
        }
        Ok(Self {
            client,
            link,
            decoder: Decoder::new(),
            logits: Tensor::default(),
            unsplit,
            unsplit_accuracy,
        })
    }

    /// Top-1 of the unsplit network in percent.
    pub fn unsplit_top1(&self) -> f64 {
        self.unsplit_accuracy.percent()
    }

    /// Send the features at one cut for every image in every way.
    ///
    /// # Errors
    /// The server is gone or refuses; or methods that must give the same logits do not.
    pub fn measure(&mut self, head: &Half, dataset: &Dataset, progress: &ProgressBar) -> Result<Vec<Row>> {
        let mut contenders = contenders()?;
        for ((image, label), unsplit) in dataset.iter().zip(self.unsplit.clone()) {
            let features = head
                .run(&image)
                .map_err(|error| Failure::model(format!("the head at `{}` failed", head.cut), &error))?;
            let mut same_symbols: Option<(u8, Vec<f32>)> = None;
            for contender in &mut contenders {
                contender.encode(&features)?;
                let logits = self.classify(&head.cut, contender)?;
                let expected = match &same_symbols {
                    _ if contender.method == Method::Raw => Some(unsplit.as_slice()),
                    Some((bits, logits)) if *bits == contender.bits => Some(logits.as_slice()),
                    _ => None,
                };
                if expected.is_some_and(|expected| !same_bits(expected, &logits)) {
                    let (method, bits) = (contender.method.name(), contender.bits);
                    return Err(Failure::data("two ways to send the same symbols gave different logits")
                        .because(format!("`{method}` at {bits} bits, cut `{}`", head.cut))
                        .hint("this is a fault in narrows: please report it"));
                }
                contender.accuracy.record(&logits, label);
                same_symbols = Some((contender.bits, logits));
            }
            progress.inc(1);
        }
        let raw_bytes = 4.0 * head.output_dims().iter().product::<usize>() as f64;
        Ok(contenders
            .iter()
            .map(|contender| self.row(contender, &head.cut, raw_bytes, dataset.len()))
            .collect())
    }

    /// Let the server decode a contender's frame and run the tail.
    fn classify(&mut self, cut: &str, contender: &mut Contender) -> Result<Vec<f32>> {
        let answer = self
            .client
            .request(cut, &contender.frame)
            .map_err(|error| Failure::link("the tail server did not answer", &error))?;
        contender.decode.record(std::time::Duration::from_nanos(answer.timings.decode_ns));
        self.decoder
            .decode_into(&answer.payload, &mut self.logits)
            .map_err(|error| Failure::codec("cannot read the tail server's answer", &error))?;
        Ok(self.logits.to_f32())
    }

    fn row(&self, contender: &Contender, cut: &str, raw_bytes: f64, images: usize) -> Row {
        let bytes_per_image = contender.bytes as f64 / images as f64;
        Row {
            cut: cut.into(),
            q: contender.bits,
            method: contender.method,
            bytes_per_image,
            ratio: raw_bytes / bytes_per_image,
            encode_us: contender.encode.median_us(),
            decode_us: contender.decode.median_us(),
            link_ms: self.link.transfer_time(bytes_per_image.round() as u64).as_secs_f64() * 1e3,
            top1: contender.accuracy.percent(),
            top1_delta: contender.accuracy.points_above(self.unsplit_accuracy),
        }
    }
}

fn contenders() -> Result<Vec<Contender>> {
    let quantised = BIT_WIDTHS.into_iter().flat_map(|bits| Method::QUANTISED.map(|method| (method, bits)));
    let all = std::iter::once((Method::Raw, RAW_BITS)).chain(quantised);
    all.map(|(method, bits)| {
        let encoder = method.options(bits).map(Encoder::new).transpose();
        Ok(Contender {
            method,
            bits,
            encoder: encoder.map_err(|error| Failure::codec("cannot set up an encoder", &error))?,
            frame: Vec::new(),
            bytes: 0,
            encode: Samples::default(),
            decode: Samples::default(),
            accuracy: Accuracy::default(),
        })
    })
    .collect()
}

impl Contender {
    fn encode(&mut self, features: &Tensor) -> Result<()> {
        let (encoded, time) = match &mut self.encoder {
            Some(encoder) => timed(|| encoder.encode_into(&features.view(), &mut self.frame)),
            None => timed(|| {
                self.frame = encode_raw(&features.view());
                Ok(())
            }),
        };
        encoded.map_err(|error| Failure::codec("cannot encode an image's features", &error))?;
        self.encode.record(time);
        self.bytes += self.frame.len() as u64;
        Ok(())
    }
}

fn same_bits(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}
