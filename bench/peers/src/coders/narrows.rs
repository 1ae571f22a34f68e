//! Ours: order 0 and tANS in natural order, neighbour contexts where the data are planes.

use narrows::{CoderChoice, Path, SymbolDecoder, SymbolEncoder, SymbolLayout, Target};

use super::{Coder, Entry, Failure};
use crate::data::{Data, LARGE};

/// The largest alphabet that tANS is measured on.
const TANS_ALPHABET: u16 = 16;

struct Narrows {
    layout: SymbolLayout,
    encoder: SymbolEncoder,
    decoder: SymbolDecoder,
}

impl Coder for Narrows {
    fn encode(&mut self, symbols: &[u8], stream: &mut Vec<u8>) -> Result<(), Failure> {
        Ok(self.encoder.encode_into(symbols, &self.layout, stream)?)
    }

    fn decode(&mut self, stream: &[u8], symbols: &mut Vec<u8>) -> Result<(), Failure> {
        Ok(self.decoder.decode_into(stream, &self.layout, symbols)?)
    }
}

pub fn entries(data: &Data) -> Vec<Entry> {
    let natural = SymbolLayout::natural(data.symbols.len(), data.alphabet).expect("an alphabet");
    let planes = data.planes.map(|planes| SymbolLayout::planes(planes, data.alphabet).expect("an alphabet"));
    let mut entries = Vec::new();
    for path in Path::ALL.into_iter().filter(|path| path.is_available()) {
        let mut add = |name: &str, layout: SymbolLayout, target: Target, coder: CoderChoice| {
            let encoder = SymbolEncoder::new(target).with_path(path).with_coder(coder).expect("a coder");
            let decoder = SymbolDecoder::default().with_path(path);
            entries.push(Entry::new(name, path.name(), Narrows { layout, encoder, decoder }));
        };
        add("narrows order-0", natural, Target::Size, CoderChoice::Auto);
        add("narrows order-0 latency", natural, Target::Latency, CoderChoice::Auto);
        add("narrows order-0 speed", natural, Target::Speed, CoderChoice::Auto);
        if let Some(planes) = planes {
            add("narrows contexts", planes, Target::Size, CoderChoice::Auto);
            add("narrows contexts latency", planes, Target::Latency, CoderChoice::Auto);
            add("narrows contexts speed", planes, Target::Speed, CoderChoice::Auto);
        }
        if data.alphabet <= TANS_ALPHABET && data.symbols.len() < LARGE {
            for state_bits in [6, 8] {
                let name = format!("narrows tANS-{}", 1 << state_bits);
                add(&name, natural, Target::Size, CoderChoice::Tans { state_bits });
            }
        }
    }
    entries
}
