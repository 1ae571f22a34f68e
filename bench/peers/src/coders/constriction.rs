//! constriction: its default ANS coder (u32 words, u64 state), one categorical model of 12-bit probabilities,
//! decoded with a lookup table.

use constriction::UnwrapInfallible;
use constriction::stream::Decode;
use constriction::stream::model::{
    IterableEntropyModel, SmallContiguousCategoricalEntropyModel, SmallContiguousLookupDecoderModel,
};
use constriction::stream::stack::DefaultAnsCoder;

use super::{Coder, Failure};

/// The stream is the probabilities (u16 each), then the coder's words.
pub struct Constriction {
    alphabet: usize,
    counts: Vec<f32>,
    coder: DefaultAnsCoder,
    words: Vec<u32>,
}

impl Constriction {
    pub fn new(alphabet: u16) -> Self {
        let coder = DefaultAnsCoder::new();
        Self { alphabet: usize::from(alphabet), counts: Vec::new(), coder, words: Vec::new() }
    }
}

impl Coder for Constriction {
    fn encode(&mut self, symbols: &[u8], stream: &mut Vec<u8>) -> Result<(), Failure> {
        let mut counts = [0_u32; 256];
        symbols.iter().for_each(|&symbol| counts[usize::from(symbol)] += 1);
        self.counts.clear();
        self.counts.extend(counts[..self.alphabet].iter().map(|&n| n as f32));
        let model = SmallContiguousCategoricalEntropyModel::from_floating_point_probabilities_fast(
            &self.counts,
            None,
        )
        .map_err(|()| "probabilities")?;
        self.coder.clear();
        let symbols = symbols.iter().map(|&symbol| usize::from(symbol));
        self.coder.encode_iid_symbols_reverse(symbols, model.as_view())?;
        stream.clear();
        for (_, _, probability) in model.symbol_table() {
            stream.extend(probability.get().to_le_bytes());
        }
        let words = self.coder.get_compressed().unwrap_infallible();
        words.iter().for_each(|word| stream.extend(word.to_le_bytes()));
        Ok(())
    }

    fn decode(&mut self, stream: &[u8], symbols: &mut Vec<u8>) -> Result<(), Failure> {
        let (table, words) = stream.split_at(2 * self.alphabet);
        let table = table.as_chunks().0.iter().map(|&bytes| u16::from_le_bytes(bytes));
        let model = SmallContiguousLookupDecoderModel::from_nonzero_fixed_point_probabilities(table, false)
            .map_err(|()| "probabilities")?;
        self.words.clear();
        self.words.extend(words.as_chunks().0.iter().map(|&bytes| u32::from_le_bytes(bytes)));
        let mut coder =
            DefaultAnsCoder::from_compressed(std::mem::take(&mut self.words)).map_err(|_| "words")?;
        let decoded = coder.decode_iid_symbols(symbols.len(), model.as_view());
        for (to, symbol) in symbols.iter_mut().zip(decoded) {
            *to = symbol.unwrap_infallible() as u8;
        }
        self.words = coder.into_raw_parts().0;
        Ok(())
    }
}
