//! What a packed tensor looks like inside, for people.

use serde::Serialize;

use crate::frame::{Content, Header, Place};

/// How a packed tensor is coded, and where its bytes go.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Layout {
    /// `"tans"`, `"constant"`, `"rans"`, or `"packed"`: bins of as many bits each, not coded.
    pub coder: &'static str,
    /// States of the tANS machine.
    pub states: Option<usize>,
    /// Tables: one, or two in contexts.
    pub contexts: Option<usize>,
    /// Lanes of a row.
    pub lanes: Option<usize>,
    /// Chunks, and matrix rows of each.
    pub chunks: usize,
    /// Matrix rows of a chunk.
    pub chunk_rows: usize,
    /// Bytes of lanes' first states and bit streams.
    pub payload_bytes: usize,
    /// Bytes of the lists of outliers.
    pub outlier_bytes: usize,
    /// Bytes of header, steps, table, directory and checksum.
    pub header_bytes: usize,
}

impl Layout {
    pub(crate) fn of(header: &Header, places: &[Place], data: &[u8]) -> Self {
        // The coder is in the low bits of a stream's first byte (`docs/format.md`, section 5).
        let coded = |place: &Place| data.get(place.start).is_some_and(|form| form & 3 >= 2);
        let (coder, tans) = match &header.content {
            Content::Constant(_) => ("constant", None),
            Content::Streams => (if places.iter().any(coded) { "rans" } else { "packed" }, None),
            Content::Tans(tans) => ("tans", Some(tans)),
        };
        let streams = matches!(header.content, Content::Streams);
        let sum = |length: fn(&Place) -> usize| places.iter().map(length).sum::<usize>();
        let all = sum(|place| place.end - place.start);
        let payload_bytes = if streams { all } else { sum(|place| place.streams_end - place.start) };
        Self {
            coder,
            states: tans.map(|tans| 1 << tans.state_bits),
            contexts: tans.map(|tans| tans.contexts),
            lanes: tans.map(|tans| tans.lanes_used(header.columns())),
            chunks: places.len(),
            chunk_rows: header.chunk_rows,
            payload_bytes,
            outlier_bytes: all - payload_bytes,
            header_bytes: data.len() - all,
        }
    }
}
