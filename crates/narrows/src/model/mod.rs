//! What is known of the next symbol before it is coded: frequency tables, and what chooses among them.

pub(crate) mod bins;
pub mod coding;
pub(crate) mod context;
pub(crate) mod histogram;
pub(crate) mod lengths;
mod log2;
pub(crate) mod neighbours;
pub mod table;
pub(crate) mod tally;

pub(crate) use context::{Classes, Context, chunks};
pub use table::{Table, probability_bits};

/// Frequency tables and the context that chooses among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Model {
    pub(crate) context: Context,
    /// One table per context; more may be kept from earlier, larger models.
    tables: Vec<Table>,
}

impl Model {
    /// A model with this context, its tables still to be filled.
    pub(crate) fn with_context(context: Context) -> Self {
        Self { context, tables: Vec::new() }
    }

    /// The tables in use.
    pub(crate) fn tables(&self) -> &[Table] {
        &self.tables[..self.context.tables()]
    }

    /// The tables in use, to be filled; new ones are made where there were fewer before.
    pub(crate) fn tables_mut(&mut self) -> &mut [Table] {
        let count = self.context.tables();
        if self.tables.len() < count {
            self.tables.resize(count, Table::default());
        }
        &mut self.tables[..count]
    }

    /// Bits the model spends on symbols counted by table.
    pub(crate) fn cost_bits(&self, counts: &[u32]) -> f64 {
        let alphabet = counts.len() / self.tables().len();
        self.tables().iter().zip(counts.chunks_exact(alphabet)).map(|(table, n)| table.cost_bits(n)).sum()
    }
}
