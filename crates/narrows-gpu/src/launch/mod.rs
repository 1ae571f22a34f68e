//! What the CUDA kernels are launched with: structures, sizes and bytes, without a device. The CUDA host side
//! and the tests through the CPU shim use the same. Not a stable interface.

mod decode;
mod encode;
mod job;

pub use decode::{DecodeBatch, Fault, Staged};
pub use encode::{EncodeBatch, Outcome, Scratch};

/// A kernel of `kernels/narrows.cu`, in the order of `kernels/on_cpu.cpp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// Payload to elements, or to symbols.
    Decode,
    /// Where the rows of a modified CSR begin.
    CsrStarts,
    /// The rows of a modified CSR spread out.
    CsrSpread,
    /// The range of a tensor.
    EncodeRange,
    /// Symbols in coded order, counted; then tables.
    EncodeCount,
    /// Symbols to words; then header and directory.
    EncodeSymbols,
    /// Payload and checksum.
    EncodeCompact,
    /// All of encoding in one cooperative launch.
    EncodeAtOnce,
    /// The rows of a modified CSR counted.
    CsrRows,
    /// Its sequence, counted; then its table.
    CsrGather,
}

impl Kernel {
    /// Every kernel.
    pub const ALL: [Self; 10] = [
        Self::Decode,
        Self::CsrStarts,
        Self::CsrSpread,
        Self::EncodeRange,
        Self::EncodeCount,
        Self::EncodeSymbols,
        Self::EncodeCompact,
        Self::EncodeAtOnce,
        Self::CsrRows,
        Self::CsrGather,
    ];

    /// Its name in the source.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::CsrStarts => "csr_starts",
            Self::CsrSpread => "csr_spread",
            Self::EncodeRange => "encode_range",
            Self::EncodeCount => "encode_count",
            Self::EncodeSymbols => "encode_symbols",
            Self::EncodeCompact => "encode_compact",
            Self::EncodeAtOnce => "encode_at_once",
            Self::CsrRows => "csr_rows",
            Self::CsrGather => "csr_gather",
        }
    }
}

/// Kernels that are compiled together for one kind of job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// [`Kernel::Decode`].
    Decode,
    /// Those of encoding.
    Encode,
}

impl Half {
    /// The kernels.
    pub const fn kernels(self) -> &'static [Kernel] {
        match self {
            Self::Decode => &[Kernel::Decode],
            Self::Encode => &[
                Kernel::EncodeRange,
                Kernel::EncodeCount,
                Kernel::EncodeSymbols,
                Kernel::EncodeCompact,
                Kernel::EncodeAtOnce,
                Kernel::CsrRows,
                Kernel::CsrGather,
            ],
        }
    }

    /// The macro that holds their constants, and the one that leaves the other half out.
    pub const fn macros(self) -> (&'static str, &'static str) {
        match self {
            Self::Decode => ("NARROWS_DECODE_CONSTANTS", "NARROWS_WITHOUT_ENCODE"),
            Self::Encode => ("NARROWS_ENCODE_CONSTANTS", "NARROWS_WITHOUT_DECODE"),
        }
    }
}

/// One launch: a grid over tensors (y) and their parts (x).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launch {
    /// The kernel.
    pub kernel: Kernel,
    /// Blocks for a tensor, and tensors.
    pub grid: (u32, u32),
    /// Threads of a block.
    pub threads: u32,
    /// Shared memory of a block, bytes.
    pub shared: u32,
    /// Address of the first tensor's job.
    pub jobs: u64,
}

/// Shared memory that every device gives a block without being asked.
pub const SHARED_BYTES: usize = 48 << 10;

/// Bytes for the device, gathered in one piece so that one copy takes them there.
#[derive(Debug, Default)]
struct Pieces(Vec<u8>);

impl Pieces {
    /// Append at a multiple of 16; returns where.
    fn push<T: bytemuck::NoUninit>(&mut self, items: &[T]) -> u64 {
        self.0.resize(self.0.len().next_multiple_of(16), 0);
        let at = self.0.len() as u64;
        self.0.extend_from_slice(bytemuck::cast_slice(items));
        at
    }
}

/// A layout of scratch memory that only the device touches.
#[derive(Clone, Copy, Debug, Default)]
struct Rooms(u64);

impl Rooms {
    /// Room for `bytes`, at a multiple of 256.
    fn take(&mut self, bytes: u64) -> u64 {
        let at = self.0;
        self.0 = (at + bytes).next_multiple_of(256);
        at
    }
}
