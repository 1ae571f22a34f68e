//! The coders side by side, each called the way its documentation says is fastest.

#[cfg(feature = "constriction")]
mod constriction;
#[cfg(feature = "htscodecs")]
mod htscodecs;
#[cfg(feature = "lz4")]
mod lz4;
mod narrows;
#[cfg(feature = "pco")]
mod pco;
#[cfg(feature = "zstd")]
mod zstd;
#[cfg(feature = "zstd")]
mod zstd_entropy;

use crate::data::Data;
use crate::results::Missing;

/// What went wrong in a coder.
pub type Failure = Box<dyn std::error::Error>;

/// Turns symbols into bytes and back; keeps what memory its library lets it keep.
pub trait Coder {
    /// Get ready for a run of calls, outside of any time that is taken.
    fn prepare(&mut self) {}

    /// Encode over `stream`.
    fn encode(&mut self, symbols: &[u8], stream: &mut Vec<u8>) -> Result<(), Failure>;

    /// Decode over `symbols`, which hold as many as were encoded.
    fn decode(&mut self, stream: &[u8], symbols: &mut Vec<u8>) -> Result<(), Failure>;
}

/// A coder with the names its row goes by.
pub struct Entry {
    /// The library and its method.
    pub coder: String,
    /// Which of its instruction sets.
    pub path: String,
    /// The coder.
    pub of: Box<dyn Coder>,
}

impl Entry {
    fn new(coder: &str, path: &str, of: impl Coder + 'static) -> Self {
        Self { coder: coder.into(), path: path.into(), of: Box::new(of) }
    }
}

/// Every coder that takes part on these data.
pub fn all(data: &Data) -> Vec<Entry> {
    let mut all = narrows::entries(data);
    #[cfg(feature = "htscodecs")]
    all.extend(htscodecs::entries(data));
    #[cfg(feature = "zstd")]
    all.extend(zstd_entropy::entries());
    #[cfg(feature = "zstd")]
    all.extend(zstd::entries(data));
    #[cfg(feature = "lz4")]
    all.push(Entry::new("lz4", "native", lz4::Lz4));
    #[cfg(feature = "constriction")]
    all.push(Entry::new("constriction", "native", constriction::Constriction::new(data.alphabet)));
    #[cfg(feature = "pco")]
    all.push(Entry::new("pco", "native", pco::Pco::default()));
    all
}

/// The peers that this program was built without, for the reasons `bench/run` found.
pub fn missing() -> Vec<Missing> {
    let built = [
        ("constriction", cfg!(feature = "constriction")),
        ("htscodecs", cfg!(feature = "htscodecs")),
        ("lz4", cfg!(feature = "lz4")),
        ("pco", cfg!(feature = "pco")),
        ("zstd", cfg!(feature = "zstd")),
    ];
    let missing = built.iter().filter(|(_, built)| !built);
    missing
        .map(|(name, _)| {
            let also = if *name == "zstd" { " (and so FSE and Huff0)" } else { "" };
            let reason = format!("{name}{also} could not be built; see bench/out/build-{name}.log");
            Missing { coder: (*name).into(), reason }
        })
        .collect()
}
