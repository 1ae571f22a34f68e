//! Attention over vectors one after the other.

use std::ops::Range;

/// How vectors fall apart into heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Heads {
    /// Heads of queries.
    pub queries: usize,
    /// Heads of keys and values; each serves as many heads of queries.
    pub keys: usize,
    /// Elements of a head.
    pub size: usize,
}

impl Heads {
    /// Each query's values, weighed by how well the query fits their keys, head by head: `softmax(q k^T / sqrt(size)) v`.
    ///
    /// `query` is words x heads of queries x size, `key` and `value` are words x heads of keys x size; `seen` says how many
    /// keys, from the first on, a query may look at.
    pub fn attend(
        self,
        query: &[f32],
        key: &[f32],
        value: &[f32],
        seen: impl Fn(usize) -> usize,
    ) -> Vec<f32> {
        let scale = 1.0 / (self.size as f32).sqrt();
        let mut out = vec![0.0; query.len()];
        let width = self.queries * self.size;
        let mut fits = Vec::new();
        for (word, (query, out)) in query.chunks_exact(width).zip(out.chunks_exact_mut(width)).enumerate() {
            let heads = query.chunks_exact(self.size).zip(out.chunks_exact_mut(self.size));
            for (head, (query, out)) in heads.enumerate() {
                let own = self.served_by(head);
                let keys = key.chunks_exact(self.keys * self.size).map(|key| &key[own.clone()]);
                fits.clear();
                fits.extend(keys.take(seen(word)).map(|key| scale * dot(query, key)));
                softmax(&mut fits);
                for (fit, value) in fits.iter().zip(value.chunks_exact(self.keys * self.size)) {
                    out.iter_mut().zip(&value[own.clone()]).for_each(|(out, value)| *out += fit * value);
                }
            }
        }
        out
    }

    /// Where the keys of a head of queries are.
    const fn served_by(self, head: usize) -> Range<usize> {
        let own = head / (self.queries / self.keys);
        own * self.size..(own + 1) * self.size
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn softmax(fits: &mut [f32]) {
    let most = fits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    fits.iter_mut().for_each(|fit| *fit = (*fit - most).exp());
    let sum: f32 = fits.iter().sum();
    fits.iter_mut().for_each(|fit| *fit /= sum);
}
