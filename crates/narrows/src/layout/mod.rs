//! The order in which a tensor's symbols are coded: dense in natural or plane order, or the
//! modified CSR of the reference work.

mod csr;
mod planes;
mod reshape;
mod rows;
mod transpose;

pub use csr::{Csr, MAX_COLUMNS};
pub use planes::Planes;
pub use reshape::{ReshapeSearch, Visit, best};
pub(crate) use rows::Rows;

/// How the symbols of a tensor are laid out before they are coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Every symbol, in the tensor's own row-major order.
    Natural,
    /// Every symbol, in plane order: a lane is a channel, a row is a position, so that a symbol's
    /// spatial neighbours are decoded before it, in its own lane.
    Planes,
    /// Modified CSR with one frequency table for values, columns and counts (the reference method).
    CsrJoint {
        /// Rows `N` of the reshaped `N x K` matrix.
        rows: usize,
    },
    /// Modified CSR with a table each for values, columns and counts.
    CsrSeparate {
        /// Rows `N` of the reshaped `N x K` matrix.
        rows: usize,
    },
}
