//! Modified compressed sparse rows: non-zero values, their columns, and non-zeros per row
//! (counts, not the running sums of ordinary CSR; paper A, section III-B).

/// A symbol matrix of `rows x columns` as its non-zero symbols.
///
/// "Zero" is symbol 0, as in the reference work; after a ReLU it is also the value 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Csr {
    /// The non-zero symbols, row by row.
    pub values: Vec<u16>,
    /// Their columns.
    pub columns: Vec<u16>,
    /// Non-zero symbols in each row.
    pub counts: Vec<u16>,
}

/// The largest row length, so that columns and counts are symbols of at most 4,096 kinds.
pub const MAX_COLUMNS: usize = 4095;

impl Csr {
    /// Set to the matrix that has `symbols` in `rows` equal rows of at most 4,095.
    pub fn set(&mut self, symbols: &[u8], rows: usize) {
        debug_assert!(rows > 0 && symbols.len().is_multiple_of(rows));
        let columns = symbols.len() / rows;
        debug_assert!((1..=MAX_COLUMNS).contains(&columns));
        self.values.clear();
        self.columns.clear();
        self.counts.clear();
        for row in symbols.chunks_exact(columns) {
            let before = self.values.len();
            for (column, &symbol) in row.iter().enumerate().filter(|(_, symbol)| **symbol != 0) {
                self.values.push(u16::from(symbol));
                self.columns.push(column as u16);
            }
            self.counts.push((self.values.len() - before) as u16);
        }
    }

    /// `D = v + c + r`: values, columns and counts in one sequence of `2 * nnz + N` symbols.
    pub fn concatenate(&self, out: &mut Vec<u16>) {
        out.clear();
        out.extend_from_slice(&self.values);
        out.extend_from_slice(&self.columns);
        out.extend_from_slice(&self.counts);
    }

    /// The dense symbols of `D` with `nonzeros` non-zeros in rows of `columns`, written over `symbols`.
    ///
    /// # Errors
    /// What is wrong with `D`, if no matrix has it.
    pub fn expand(
        concatenated: &[u16],
        nonzeros: usize,
        columns: usize,
        symbols: &mut Vec<u8>,
    ) -> Result<(), &'static str> {
        let (values, rest) = concatenated.split_at_checked(nonzeros).ok_or("fewer symbols than non-zeros")?;
        let (indices, counts) = rest.split_at_checked(nonzeros).ok_or("fewer columns than non-zeros")?;
        symbols.clear();
        symbols.resize(counts.len() * columns, 0);
        let mut next = 0;
        for (row, &count) in symbols.chunks_exact_mut(columns).zip(counts) {
            let end = next + count as usize;
            if end > nonzeros {
                return Err("the rows' counts exceed the non-zeros");
            }
            let mut from = 0;
            for (&column, &value) in indices[next..end].iter().zip(&values[next..end]) {
                let column = column as usize;
                if column < from || column >= columns {
                    return Err("a column is outside its row or out of order");
                }
                row[column] =
                    u8::try_from(value).ok().filter(|&v| v != 0).ok_or("a value is not a symbol")?;
                from = column + 1;
            }
            next = end;
        }
        if next == nonzeros { Ok(()) } else { Err("the rows' counts leave non-zeros over") }
    }
}
